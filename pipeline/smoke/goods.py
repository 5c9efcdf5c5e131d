"""What the test host has on a drive: large, the same for every build, and seldom read.

Each file there has a link in the host's root, so that programs find it where they expect it.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.smoke.cpio import Directory, File, Symlink, Tree
from pipeline.smoke.errors import PackageContentError
from pipeline.smoke.layers import DirectoryLayer, PackageLayer, Union
from pipeline.smoke.libraries import closure
from pipeline.smoke.rom import silent_rom

PYGRUB, QEMU, HVM_LINUX = "pygrub", "qemu", "hvm-linux"
"""Abilities of a host that depend on what image and package hold."""
MOUNT = "drive"
OF_SUITE = "usr/lib/smoke/goods"
"""Where the host has what a suite brings along, on a drive of its own."""
_SCRIPTS = Path(__file__).parent
_QEMU_PATH = re.compile(rb"/[\w/.+-]*/qemu-system-(?:i386|x86_64)\0")
_BIOS_PATH = re.compile(rb"/[\w/.+-]*/(?:bios-256k|seabios)[\w.-]*\.bin\0")
_OWN_QEMU = re.compile(r"usr/lib/xen/bin/(qemu-system-i386|qemu-dm)")
_DEBIAN_QEMU, _DEBIAN_BIOS = "usr/libexec/xen-qemu-system-i386", "usr/share/seabios/bios-256k.bin"
_LOADERS = ("linuxboot.bin", "linuxboot_dma.bin", "multiboot.bin", "pvh.bin")
_ROMS = (
    *(f"usr/share/qemu/{name}" for name in (*_LOADERS, "kvmvapic.bin", "keymaps/en-us")),
    # Of the cards that guests have, cirrus by default.
    *(f"usr/share/seabios/vgabios-{card}.bin" for card in ("cirrus", "stdvga")),
)
_CARDS = ("e1000", "e1000e", "eepro100", "ne2k_pci", "pcnet", "rtl8139", "virtio", "vmxnet3")
"""Network cards of HVM guests."""
_PYGRUB_PARTS = re.compile(r"^usr/lib(64)?/python[0-9.]+/|/fsimage\.so$")
# Not imported by anything that starts guests, and a third of all.
_NO_PYTHON = re.compile(r"(test|idlelib|lib2to3|ensurepip|pydoc_data|tkinter|config-.*|.*-packages)$")


def script(name: str) -> File:
    """Return one of this folder's shell scripts, to be run on a machine."""
    return File((_SCRIPTS / name).read_bytes(), 0o755)


@dataclass
class Goods:
    """Collects ``tree``, the drive, and ``links``, which lead there from the root of a host with ``base``."""

    package: PackageLayer
    image: DirectoryLayer
    supplies: Tree
    base: Tree
    tree: Tree = field(default_factory=dict)
    links: Tree = field(default_factory=dict)

    def add_pygrub(self) -> dict[str, str]:
        """Add pygrub and its interpreter. Returns the ability that is absent, with the reason."""
        paths = self.package.programs("pygrub")
        union = Union([self.package, self.image])
        if not paths:
            return {PYGRUB: "The package has no pygrub."}
        passed, real = union.walk(paths[0])
        entry = passed.get(real) if real is not None else None
        if real is None or not isinstance(entry, File):
            raise PackageContentError(f"/{paths[0]} leads nowhere.", file=paths[0])
        interpreter = entry.data.split(b"\n", 1)[0].removeprefix(b"#!").strip().decode().strip("/")
        found, python = union.walk(interpreter)
        if python is None or not isinstance(found.get(python), File):
            return {PYGRUB: f"The image has no /{interpreter}, which /{real} is written for."}
        self.links |= passed | found
        for name in paths[1:]:
            self.links |= union.walk(name)[0]
        library = f"usr/lib/{posixpath.basename(python)}"
        self._stand_in(python)
        self._take(closure(union, [python]), leave=(python,))
        for name in self.image.names(library):
            if not _NO_PYTHON.fullmatch(name):
                self._take_all(f"{library}/{name}")
        self._take_needs(library)
        for path in self._python_of_package():
            self.links |= closure(union, [path])
        self._as_debian_looks(library)
        return {}

    def _as_debian_looks(self, library: str) -> None:
        """Let Debian's Python find modules in site-packages, where every other Python looks for them."""
        own = {path.split("/")[3] for path in self.package.under(library) if path.count("/") > 3}
        if "site-packages" in own and "dist-packages" in {*self.image.names(library)} - own:
            self.links[f"{library}/dist-packages"] = Symlink("site-packages")

    def _python_of_package(self) -> list[str]:
        """The modules of Python that the package brings, and what they read file systems with."""
        return [path for path in self.package.under("usr/lib") if _PYGRUB_PARTS.search(path)]

    def _take_needs(self, library: str) -> None:
        """Take the libraries of the interpreter's own compiled modules, as far as the image has them."""
        union = Union([self.image])
        for name in self.image.names(f"{library}/lib-dynload"):
            # One that lacks its library is one that nothing here imports.
            try:
                self._take(closure(union, [f"{library}/lib-dynload/{name}"]), leave=(library,))
            except PackageContentError:
                continue

    def add_qemu(self) -> dict[str, str]:
        """Add a qemu for HVM guests where the package wants the system's; returns as add_pygrub."""
        libraries = [
            entry.data
            for path, entry in self.package.tree.items()
            if "/libxenlight.so." in path and isinstance(entry, File)
        ]
        wanted = {m.decode().strip("/\0") for data in libraries for m in _QEMU_PATH.findall(data)}
        # Until 4.3, libxl puts that path together, and the package brings its own.
        wanted |= {path for path in self.package.tree if _OWN_QEMU.fullmatch(path)}
        if not wanted:
            return {QEMU: "This Xen names no qemu for HVM guests, and its package has none."}
        missing = [path for path in sorted(wanted) if path not in self.package.tree]
        union = Union([self.package, self.image, PackageLayer(self.supplies)])
        try:
            self._take(closure(union, [_DEBIAN_QEMU] if missing else sorted(wanted)))
        except PackageContentError as e:
            return {QEMU: f"No qemu for HVM guests goes with this package. {e.message}"}
        for path in missing:
            self.links[path] = Symlink(f"/{MOUNT}/{_DEBIAN_QEMU}")
        for data in libraries:
            for match in _BIOS_PATH.findall(data):
                self._add(match.decode().strip("/\0"), union.walk(_DEBIAN_BIOS)[0][_DEBIAN_BIOS])
        for path in _ROMS:
            self._add(path, union.walk(path)[0][path])
        for card in _CARDS:
            self._add(f"usr/share/qemu/efi-{card}.rom", File(silent_rom()))
        for folder in ("usr/share/qemu-xen", "usr/share/xen/qemu"):
            for path in self.package.under(folder):
                self.links |= union.walk(path)[0]
        return {}

    def _take(self, files: Tree, leave: tuple[str, ...] = ()) -> None:
        """Put files on the drive that the root does not have, and links to them into the root."""
        for path, entry in files.items():
            if path in self.base or path.startswith(leave):
                continue
            if isinstance(entry, File) and path not in self.package.tree:
                self._add(path, entry)
            else:
                self.links[path] = entry

    def _add(self, path: str, entry: object) -> None:
        assert isinstance(entry, File)
        self.tree[path] = entry
        self.links[path] = Symlink(f"/{MOUNT}/{path}")

    def _take_all(self, path: str) -> None:
        """Take a file or a whole folder of the image to the drive, with one link to it."""
        self._copy(path)
        self.links[path] = Symlink(f"/{MOUNT}/{path}")

    def _copy(self, path: str) -> None:
        entry = self.image.get(path)
        if isinstance(entry, Directory):
            for name in self.image.names(path):
                if name != "__pycache__":
                    self._copy(posixpath.join(path, name))
        elif entry is not None:
            self.tree[path] = entry

    def _stand_in(self, path: str) -> None:
        """Put a file on the drive that is mounted over an empty one, so that it is where it seems to be."""
        entry = self.image.get(path)
        assert isinstance(entry, File)
        self.tree[path] = entry
        self.links[path] = File(b"", 0o755)
        mounts = self.links.get("usr/lib/smoke/mounts", File(b""))
        assert isinstance(mounts, File)
        self.links["usr/lib/smoke/mounts"] = File(mounts.data + f"{path}\n".encode())
