"""Assembling dom0's root: from the package first, with every library, and from nowhere else."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import pytest

from pipeline.smoke.cpio import File, Symlink
from pipeline.smoke.dom0 import Programs
from pipeline.smoke.errors import PackageContentError
from pipeline.smoke.hypervisor import find_xen, unpack_xen
from pipeline.smoke.layers import DirectoryLayer, PackageLayer, Union, read_packages
from pipeline.smoke.libraries import closure

BASH = Path("/bin/bash").resolve()


def test_a_program_comes_with_linker_and_libraries() -> None:
    """If this fails, programs in dom0 do not start, and a good package looks broken."""
    tree = closure(Union([DirectoryLayer(Path("/"))]), ["bin/bash"])
    names = {path.rsplit("/", 1)[-1] for path in tree}
    assert {"bash", "libc.so.6", "ld-linux-x86-64.so.2"} <= names


def test_a_missing_library_is_named_with_who_needs_it(tmp_path: Path) -> None:
    """If this fails, a package that lacks a dependency shows only as a daemon that does not start."""
    (tmp_path / "usr/bin").mkdir(parents=True)
    shutil.copy(BASH, tmp_path / "usr/bin/bash")
    (tmp_path / "lib64").symlink_to("/lib/x86_64-linux-gnu")
    (tmp_path / "lib/x86_64-linux-gnu").mkdir(parents=True)
    with pytest.raises(PackageContentError, match=r"lib\w+\.so\.\d, which /usr/bin/bash needs"):
        closure(Union([DirectoryLayer(tmp_path)]), ["usr/bin/bash"])


def test_the_package_goes_before_the_image(tmp_path: Path) -> None:
    """If this fails, the smoke test judges the image's Xen instead of the package's."""
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/xl").write_text("of the image")
    package = PackageLayer({"usr/bin/xl": File(b"of the package", 0o755)})
    tree = closure(Union([package, DirectoryLayer(tmp_path)]), ["usr/bin/xl"])
    assert tree == {"usr/bin/xl": File(b"of the package", 0o755)}


def test_links_do_not_lead_out_of_the_image(tmp_path: Path) -> None:
    """If this fails, files of this host get into dom0, and tests pass here only."""
    (tmp_path / "up").symlink_to("../../../../../../etc/passwd")
    (tmp_path / "absolute").symlink_to("/etc/passwd")
    (tmp_path / "loop").symlink_to("loop")
    union = Union([DirectoryLayer(tmp_path)])
    assert [union.walk(path)[1] for path in ("up", "absolute", "loop")] == [None, None, None]


def test_programs_are_found_wherever_the_package_keeps_them() -> None:
    """If this fails, a release with another layout cannot be smoke-tested."""
    package = PackageLayer(
        {
            "usr/lib/xen/bin/xl": File(b"", 0o755),
            "usr/bin/xl": Symlink("../lib/xen/bin/xl"),
            "usr/share/bash-completion/xl": File(b"", 0o644),
        }
    )
    assert package.programs("xl") == ["usr/bin/xl", "usr/lib/xen/bin/xl"]
    with pytest.raises(PackageContentError, match="no program oxenstored"):
        Programs.find(package)


def test_a_package_that_leads_out_of_its_root_is_refused(tmp_path: Path) -> None:
    """If this fails, a hostile package chooses what dom0's files are."""
    file = tmp_path / "evil.pkg.tar"
    with tarfile.open(file, "w") as archive:
        info = tarfile.TarInfo("../evil")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(PackageContentError, match="leads out of the root"):
        read_packages([file])
    file.write_bytes(b"no archive")
    with pytest.raises(PackageContentError, match="cannot be read"):
        read_packages([file])


def test_a_hard_link_has_the_content_of_its_file(tmp_path: Path) -> None:
    """If this fails, xenstore-ls, a hard link to xenstore, is an empty file in dom0."""
    file = tmp_path / "x.pkg.tar"
    with tarfile.open(file, "w") as archive:
        info = tarfile.TarInfo("usr/bin/xenstore")
        info.size, info.mode = 4, 0o755
        archive.addfile(info, io.BytesIO(b"real"))
        link = tarfile.TarInfo("usr/bin/xenstore-ls")
        link.type, link.linkname = tarfile.LNKTYPE, "usr/bin/xenstore"
        archive.addfile(link)
    assert read_packages([file]).tree["usr/bin/xenstore-ls"] == File(b"real", 0o755)


@pytest.mark.parametrize("data", [b"", b"text", b"\x1f\x8b broken", b"\x7fELF\x02 64-bit"])
def test_a_hypervisor_that_cannot_boot_is_named(data: bytes) -> None:
    """If this fails, a package with a broken xen.gz ends in a traceback, or blames the test bed."""
    with pytest.raises(PackageContentError, match=r"xen\.gz"):
        unpack_xen(data, "boot/xen.gz")


def test_a_package_without_a_hypervisor_is_named() -> None:
    """If this fails, smoke-testing xen-docs alone ends in a traceback."""
    with pytest.raises(PackageContentError, match="no hypervisor"):
        find_xen(PackageLayer({}))
