"""Assemble the test host: Xen, a kernel for dom0, and an initramfs made from the package itself.

The initramfs holds what the package has (found by name, wherever the package keeps it), the libraries
and tools of the image that they need, modules of the stock kernel, and this folder's scripts.
"""

from __future__ import annotations

import gzip
import hashlib
import shlex
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pipeline.smoke.cpio import CharDevice, Directory, File, Symlink, Tree, write_newc
from pipeline.smoke.errors import PackageContentError
from pipeline.smoke.kernel import Kernel
from pipeline.smoke.layers import DirectoryLayer, PackageLayer, Union
from pipeline.smoke.libraries import closure

MODULES = (
    *("virtio", "virtio_ring", "virtio_pci"),
    *("virtio_console", "xen-privcmd", "xenfs", "xen-evtchn", "xen-gntdev", "xen-gntalloc"),
    *("llc", "stp", "bridge"),
)
"""What dom0 needs to reach the host (virtio), Xen (xen-*) and a network (bridge)."""
MODULES_OF_SOME = ("virtio_pci_legacy_dev", "virtio_pci_modern_dev")
"""What one of those needs in some kernels (5.17 and later), and others do not have."""

REQUIRED = ("xl", "oxenstored", "xenconsoled", "xenconsole", "xenstore-read", "xenstore-ls", "xenstore-write")
"""Programs that the package must have; without one of them, nobody can use it."""
OPTIONAL = ("xen-init-dom0", "xenstored", "libxl-save-helper", "xen-doctor")
"""Programs that some releases have, and others not."""
TOOLS = (
    ("usr/bin/busybox", "bin/busybox"),
    ("usr/bin/bash", "bin/bash"),
    ("usr/bin/flock",),
    ("usr/sbin/losetup", "sbin/losetup"),
    # Debian 11's busybox has none.
    ("usr/bin/base64",),
)
"""What the image must have, by places where distributions keep it."""
# glibc opens this one by name when a thread is cancelled; no ELF header tells of it.
DLOPENED = (
    "usr/lib/x86_64-linux-gnu/libgcc_s.so.1",
    "lib/x86_64-linux-gnu/libgcc_s.so.1",
    "usr/lib/libgcc_s.so.1",
)

GUEST_MARKER = "SMOKE-GUEST-UP pid=1 hypervisor=xen uuid="
GUEST_NAME = "smoke-pv"
MAX_XEN = 64 << 20
_SCRIPTS = Path(__file__).parent


@dataclass(frozen=True)
class BootFiles:
    """What the machine is started with: a multiboot Xen, dom0's kernel, dom0's initramfs."""

    xen: bytes
    kernel: bytes
    initramfs: bytes

    def hashes(self) -> dict[str, str]:
        """Return the SHA-256 of each, by name."""
        parts = {"xen": self.xen, "kernel": self.kernel, "initramfs": self.initramfs}
        return {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()}


@dataclass(frozen=True)
class Programs:
    """Where the package keeps the programs that the test host starts."""

    paths: dict[str, list[str]]

    @classmethod
    def find(cls, package: PackageLayer) -> Self:
        """Look all of them up; raises PackageContentError for one that must be there and is not."""
        paths = {name: package.programs(name) for name in (*REQUIRED, *OPTIONAL)}
        for name in REQUIRED:
            if not paths[name]:
                raise PackageContentError(f"The package has no program {name}.")
        return cls(paths)

    def shell(self) -> str:
        """Return shell assignments, such as XEN_INIT_DOM0=/usr/bin/xen-init-dom0."""
        lines = []
        for name, paths in sorted(self.paths.items()):
            value = f"/{paths[0]}" if paths else ""
            lines.append(f"{name.upper().replace('-', '_')}={shlex.quote(value)}\n")
        return "".join(lines)


def find_xen(package: PackageLayer) -> bytes:
    """Return the package's hypervisor, unpacked: the 32-bit ELF file that multiboot loaders take.

    Raises PackageContentError.
    """
    for path in ("boot/xen.gz", "boot/xen"):
        passed, real = Union([package]).walk(path)
        entry = passed.get(real) if real is not None else None
        if isinstance(entry, File):
            return unpack_xen(entry.data, path)
    raise PackageContentError("The package has no hypervisor: there is no /boot/xen.gz in it.")


def unpack_xen(data: bytes, path: str) -> bytes:
    """Return the ELF file in a xen.gz; ``path`` is for messages. Raises PackageContentError."""
    if data.startswith(b"\x1f\x8b"):
        try:
            unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
            data = unpacker.decompress(data, MAX_XEN)
        except zlib.error as e:
            raise PackageContentError(f"/{path} is a damaged gzip file: {e}.") from e
        if not unpacker.eof:
            raise PackageContentError(f"/{path} is cut short, or larger than {MAX_XEN} bytes.")
    if not data.startswith(b"\x7fELF\x01"):
        raise PackageContentError(f"/{path} is not a 32-bit ELF file, so no multiboot loader can start it.")
    return data


def assemble(package: PackageLayer, image_root: Path, kernel: Kernel) -> BootFiles:
    """Make the boot files of a test host.

    The same package, image and kernel give the same bytes. Raises PackageContentError.
    """
    image = DirectoryLayer(image_root)
    union = Union([package, image])
    programs = Programs.find(package)
    wanted = [path for paths in programs.paths.values() for path in paths]
    wanted += [_first(union, places) for places in (*TOOLS, DLOPENED)]
    tree = closure(union, wanted)
    # What oxenstored loads by name, since Xen 4.20.
    tree |= closure(union, package.under("usr/lib/xen/ocaml"))
    for path in package.under("etc/xen"):
        tree |= union.walk(path)[0]
    tree = {_merged(path): entry for path, entry in tree.items()}
    busybox = _file(union, _first(union, TOOLS[0]))
    tree |= _base(kernel, busybox, programs)
    tree |= _guest(kernel, busybox)
    return BootFiles(find_xen(package), kernel.vmlinux, write_newc(tree))


def _merged(path: str) -> str:
    """Where a file is in the test host, in which /bin and /sbin are links, as Debian 11 has them not."""
    return f"usr/{path}" if path.startswith(("bin/", "sbin/")) else path


def _first(union: Union, places: Sequence[str]) -> str:
    for place in places:
        if union.walk(place)[1] is not None:
            return place
    raise PackageContentError(f"The image lacks /{places[0]}, which the test host needs.")


def _file(union: Union, path: str) -> bytes:
    passed, real = union.walk(path)
    entry = passed.get(real) if real is not None else None
    assert isinstance(entry, File)
    return entry.data


def _script(name: str) -> File:
    return File((_SCRIPTS / name).read_bytes(), 0o755)


def _base(kernel: Kernel, busybox: bytes, programs: Programs) -> Tree:
    tree: Tree = {
        "init": _script("dom0-init.sh"),
        "dev/console": CharDevice(5, 1),
        "bin": Symlink("usr/bin"),
        "sbin": Symlink("usr/sbin"),
        "usr/bin/busybox": File(busybox, 0o755),
        "usr/bin/sh": Symlink("busybox"),
        "usr/sbin": Directory(),
        "usr/lib/smoke/agent": _script("agent.sh"),
        "usr/lib/smoke/programs": File(programs.shell().encode()),
        "usr/lib/smoke/modules.order": File("".join(f"{name}\n" for name in kernel.modules).encode()),
        "etc/passwd": File(b"root:x:0:0:root:/:/bin/sh\n"),
        "etc/group": File(b"root:x:0:\n"),
        "tmp": Directory(0o1777),
    }
    for name, data in kernel.modules.items():
        tree[f"usr/lib/smoke/modules/{name}.ko"] = File(data)
    return tree


def _guest(kernel: Kernel, busybox: bytes) -> Tree:
    """Return the PV guest: a kernel, a ramdisk whose init prints the marker, a configuration."""
    ramdisk = write_newc(
        {
            "init": _script("guest-init.sh"),
            "bin/busybox": File(busybox, 0o755),
            "dev/console": CharDevice(5, 1),
        }
    )
    config = "\n".join(
        (
            f'name = "{GUEST_NAME}"',
            'type = "pv"',
            'kernel = "/usr/lib/smoke/guest/vmlinux"',
            'ramdisk = "/usr/lib/smoke/guest/initramfs"',
            'extra = "console=hvc0 quiet panic=1"',
            "memory = 112",
            "vcpus = 1",
            'on_crash = "destroy"',
            'on_reboot = "destroy"',
            "",
        )
    )
    return {
        "usr/lib/smoke/guest/vmlinux": File(kernel.vmlinux),
        "usr/lib/smoke/guest/initramfs": File(gzip.compress(ramdisk, 1, mtime=0)),
        "usr/lib/smoke/guest/pv.cfg": File(config.encode()),
    }
