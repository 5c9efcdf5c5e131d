"""Which qemu a test host has for HVM guests: the package's own, the system's, or none, and that is told."""

from __future__ import annotations

from pathlib import Path

from pipeline.smoke import goods
from pipeline.smoke.cpio import File, Symlink, Tree, with_folders
from pipeline.smoke.goods import QEMU, Goods
from pipeline.smoke.layers import DirectoryLayer, PackageLayer

SYSTEM = "usr/libexec/xen-qemu-system-i386"
OWN = "usr/lib/xen/bin/qemu-system-i386"
LIBXL = "usr/lib/libxenlight.so.4.17"


def collect(package: Tree, tmp_path: Path) -> tuple[dict[str, str], Goods]:
    supplies: Tree = {path: File(b"rom") for path in (*goods._ROMS, "usr/share/seabios/bios-256k.bin")}
    supplies[SYSTEM] = File(b"of Debian")
    made = Goods(PackageLayer(with_folders(package)), DirectoryLayer(tmp_path), with_folders(supplies), {})
    return made.add_qemu(), made


def test_the_packages_own_goes_first(tmp_path: Path) -> None:
    """If this fails, HVM guests of Xen 4.2 have no device model, or one that users do not have."""
    own = File(b"of the package", 0o755)
    rom = "usr/share/qemu-xen/bios.bin"
    package: Tree = {LIBXL: File(b"%s/qemu-system-i386\0"), OWN: own, rom: File(b"bios")}
    absent, made = collect(package, tmp_path)
    assert not absent
    assert (made.links[OWN], made.links[rom]) == (own, File(b"bios"))
    assert SYSTEM not in made.tree


def test_the_systems_is_where_libxl_looks(tmp_path: Path) -> None:
    """If this fails, HVM guests cannot be tried with a package that leaves qemu to the distribution."""
    absent, made = collect({LIBXL: File(b"\0/usr/bin/qemu-system-i386\0")}, tmp_path)
    assert not absent
    assert made.links["usr/bin/qemu-system-i386"] == Symlink(f"/drive/{SYSTEM}")
    for card in ("cirrus", "stdvga"):
        assert f"usr/share/seabios/vgabios-{card}.bin" in made.tree


def test_none_is_told(tmp_path: Path) -> None:
    """If this fails, a package without HVM guests is red, or its case is left out in silence."""
    absent, _ = collect({LIBXL: File(b"")}, tmp_path)
    assert "no qemu" in absent[QEMU]
