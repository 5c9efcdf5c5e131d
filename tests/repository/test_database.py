from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from pipeline import files, package
from pipeline.errors import FailureError
from pipeline.repository import database
from tests import builds


def contents(path: Path) -> dict[str, bytes | None]:
    with tarfile.open(path) as tar:
        found = {}
        for member in tar:
            file = tar.extractfile(member)
            found[member.name.removeprefix("./").rstrip("/")] = file.read() if file else None
        return {name: data for name, data in found.items() if name}


def without_md5(data: bytes | None) -> bytes | None:
    """Repo-add writes it until pacman 6; nobody reads it beside the SHA-256."""
    if data is None or b"%MD5SUM%\n" not in data:
        return data
    before, _, rest = data.partition(b"%MD5SUM%\n")
    return before + rest.partition(b"\n\n")[2]


EXTRA = (
    "pkgdesc = two  spaces\ngroup = one\ngroup = two\nlicense = MIT\nlicense = GPL-2.0-only\nreplaces = old\n"
    "conflict = foe\nprovides = part=1\nbackup = etc/x\ndepend = glibc\ndepend = bash>=5\n"
    "optdepend = docs: to read\nmakedepend = gcc\ncheckdepend = python\n"
)


def make(folder: Path, name: str, extra: str = "") -> Path:
    path = folder / f"{name}-1:2.0-3-any.pkg.tar.xz"
    contents = {f"usr/share/{name}/b": b"b", f"usr/share/{name}-x": b"x", "etc/a": b"a"}
    path.write_bytes(builds.package(name, "1:2.0-3", contents, info=extra))
    return path


@pytest.mark.integration
def test_the_databases_hold_what_repo_add_writes(tmp_path: Path) -> None:
    if not shutil.which("repo-add"):
        pytest.skip("repo-add is not installed")
    paths = [make(tmp_path, "xen", EXTRA), make(tmp_path, "xen-docs")]
    paths[0].with_name(f"{paths[0].name}.sig").write_bytes(b"\x88signature" * 30)
    subprocess.run(["repo-add", tmp_path / "real.db.tar.gz", *paths], check=True, capture_output=True)
    entries = [database.entry(package.read(path), path, files.sha256(path)) for path in paths]
    for suffix in ("db", "files"):
        ours = tmp_path / f"ours.{suffix}"
        ours.write_bytes(database.render(entries, with_files=suffix == "files"))
        real = contents(tmp_path / f"real.{suffix}.tar.gz")
        assert contents(ours) == {name: without_md5(data) for name, data in real.items()}


def test_the_same_packages_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    paths = [make(tmp_path, name) for name in ("a", "b", "c")]
    entries = [database.entry(package.read(path), path, files.sha256(path)) for path in paths]
    assert database.render(entries, with_files=True) == database.render(entries[::-1], with_files=True)


def test_a_signature_that_pacman_would_refuse_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path, "xen")
    path.with_name(f"{path.name}.sig").write_bytes(bytes(database.MAX_SIGNATURE + 1))
    found = database.entry(package.read(path), path, files.sha256(path))
    with pytest.raises(FailureError, match="larger than pacman takes"):
        found.desc()
