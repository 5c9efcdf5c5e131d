"""Xen's packages in the hands of the real pacman: installed together and apart, upgraded, removed."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from pipeline import package
from tests.repository.clients import Client

pytestmark = pytest.mark.integration

# The root is empty: there is nothing to depend on, and no shell for the install script.
HOW = ("--nodeps", "--nodeps", "--noscriptlet")


def by_name(packages: list[Path]) -> dict[str, Path]:
    return {package.read(path).name: path for path in packages}


@pytest.fixture
def client(tmp_path: Path) -> Client:
    client = Client(tmp_path / "root")
    client.configure("")
    return client


def installed(client: Client) -> set[str]:
    """All files and folders of the machine, without pacman's own."""
    own = ("var/lib/pacman", "var/cache/pacman", "gnupg", "etc/pacman.conf")
    names = {str(path.relative_to(client.root)) for path in client.root.rglob("*")}
    return {name for name in names if not name.startswith(own)}


def older(path: Path, target: Path) -> Path:
    """Make the package of a build before this one, with other contents of every file that users edit."""
    backup = set(package.read(path).pkginfo["backup"])
    with tarfile.open(path) as old, tarfile.open(target, "w") as new:
        for member in old:
            file = old.extractfile(member) if member.isreg() else None
            data = file.read() if file else b""
            if member.name == ".PKGINFO":
                lines = data.decode().splitlines(keepends=True)
                data = "".join("pkgver = 0.1-1\n" if x.startswith("pkgver") else x for x in lines).encode()
            elif member.name in backup:
                data = b"# as it was in an older build\n" + data
            member.size = len(data) if member.isreg() else 0
            new.addfile(member, io.BytesIO(data) if member.isreg() else None)
    return target


def test_the_packages_are_installed_together_and_apart_and_leave_nothing(
    xen_packages: list[Path], client: Client
) -> None:
    before = installed(client)
    names = by_name(xen_packages)
    client.fine("-U", *HOW, *names.values())
    assert set(client.fine("-Qq").split()) == set(names)
    assert "boot/xen.gz" in installed(client) - before
    client.fine("-R", *HOW, "--nosave", *names)
    assert installed(client) == before
    for name, path in names.items():
        client.fine("-U", *HOW, path)
        assert client.fine("-Qq").split() == [name]
        client.fine("-R", *HOW, "--nosave", name)
        assert installed(client) == before


def test_an_upgrade_keeps_what_the_user_has_edited(
    xen_packages: list[Path], client: Client, tmp_path: Path
) -> None:
    new = by_name(xen_packages)["xen"]
    backup = package.read(new).pkginfo["backup"]
    assert len(backup) >= 2
    client.fine("-U", *HOW, older(new, tmp_path / "xen-0.1-1-x86_64.pkg.tar"))
    edited, untouched = client.root / backup[0], client.root / backup[1]
    edited.write_text("# the user's own\n")
    client.fine("-U", *HOW, new)
    assert edited.read_text() == "# the user's own\n"
    assert edited.with_name(f"{edited.name}.pacnew").is_file()
    assert not untouched.with_name(f"{untouched.name}.pacnew").exists()
    assert not untouched.read_bytes().startswith(b"# as it was in an older build")
    client.fine("-R", *HOW, "xen")
    assert edited.with_name(f"{edited.name}.pacsave").read_text() == "# the user's own\n"


def test_every_file_of_settings_is_one_that_pacman_keeps(xen_packages: list[Path]) -> None:
    """Or an upgrade would overwrite what a user has written into it."""
    xen = package.read(by_name(xen_packages)["xen"])
    scripts = ("etc/xen/scripts/", "etc/grub.d/")
    settings = {m.path for m in xen.files if m.path.startswith("etc/") and m.is_file}
    settings = {path for path in settings if not path.startswith(scripts)}
    missing = settings - set(xen.pkginfo["backup"])
    assert not {path for path in missing if path.endswith(".conf") or "/conf.d/" in path}
