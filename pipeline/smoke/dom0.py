"""Assemble the test host: Xen, a kernel for dom0, and an initramfs made from the package itself.

The initramfs holds what the package has (found by name, wherever the package keeps it), the libraries
and tools of the image that they need, modules of the stock kernel, and this folder's scripts. What is large
and not the package's lies on a drive, and links lead there.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pipeline.smoke import guest_files
from pipeline.smoke.cpio import CharDevice, Directory, File, Symlink, Tree, write_newc
from pipeline.smoke.errors import KernelImageError, PackageContentError
from pipeline.smoke.goods import HVM_LINUX, OF_SUITE, Goods, script
from pipeline.smoke.hypervisor import find_xen
from pipeline.smoke.kernel import Kernel
from pipeline.smoke.layers import DirectoryLayer, PackageLayer, Union
from pipeline.smoke.libraries import closure

MODULES = (
    *("virtio", "virtio_ring", "virtio_pci"),
    *("virtio_console", "xen-privcmd", "xenfs", "xen-evtchn", "xen-gntdev", "xen-gntalloc"),
    *("llc", "stp", "bridge", "tun", "xen-netback"),
    *("virtio_blk", "crc32c_generic", "ext4", "loop", "xen-blkback"),
)
"""What dom0 needs to reach the host (virtio), Xen (xen-*), a network (bridge, tun) and disks."""
GUEST_MODULES = ("crc32c_generic", "ext4", "xen-blkfront", "xen-netfront")
"""What a Linux guest needs for its disk and its network."""
MODULES_OF_SOME = ("virtio_pci_legacy_dev", "virtio_pci_modern_dev")
"""What one of those needs in some kernels (5.17 and later), and others do not have."""

REQUIRED = ("xl", "oxenstored", "xenconsoled", "xenconsole", "xenstore-read", "xenstore-ls", "xenstore-write")
"""Programs that the package must have; without one of them, nobody can use it."""
OPTIONAL = (
    *("xen-init-dom0", "xenstored", "libxl-save-helper", "xentop", "hvmloader"),
    *("xenstore-list", "xenstore-exists", "xenstore-rm", "xen-doctor"),
)
"""Programs that some releases have, and others not."""
TOOLS = (
    ("usr/bin/busybox", "bin/busybox"),
    ("usr/bin/bash", "bin/bash"),
    ("usr/bin/flock",),
    ("usr/sbin/losetup", "sbin/losetup"),
    # The terminal that xl console wants before it takes what is typed.
    ("usr/bin/script",),
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


@dataclass(frozen=True)
class HostFiles:
    """A test host: what it is started with, and what is on its two drives.

    ``goods`` is what it reads, mounted on /drive; ``disk`` is for the disk of a guest. ``absent`` says why an
    ability of the host is not there, by its name.
    """

    boot: BootFiles
    goods: Tree
    disk: Tree
    absent: Mapping[str, str]


def assemble(package: PackageLayer, image_root: Path, kernel: Kernel, supplies: Tree) -> HostFiles:
    """Make the files of a test host.

    The same package, image, kernel and supplies give the same bytes. Raises PackageContentError.
    """
    union = Union([package, DirectoryLayer(image_root)])
    programs = Programs.find(package)
    wanted = [path for paths in programs.paths.values() for path in paths]
    wanted += [_first(union, places) for places in (*TOOLS, DLOPENED)]
    tree = closure(union, wanted)
    # What oxenstored loads by name, since Xen 4.20.
    tree |= closure(union, package.under("usr/lib/xen/ocaml"))
    for path in package.under("etc/xen"):
        tree |= union.walk(path)[0]
    tree = {_merged(path): entry for path, entry in tree.items()}
    goods = Goods(package, DirectoryLayer(image_root), supplies, tree)
    absent = goods.add_pygrub() | goods.add_qemu()
    busybox = _file(union, _first(union, TOOLS[0]))
    tree = goods.links | tree | _base(kernel, busybox, programs)
    boot = BootFiles(find_xen(package), kernel.vmlinux, write_newc(tree))
    goods.tree |= guest_files.goods(kernel, busybox)
    try:
        goods.tree |= guest_files.hvm_linux(kernel, busybox)
    except KernelImageError as e:
        absent[HVM_LINUX] = e.message
    return HostFiles(boot, goods.tree, guest_files.disk(kernel, busybox), absent)


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


def _base(kernel: Kernel, busybox: bytes, programs: Programs) -> Tree:
    names = [name for name in kernel.modules if name not in ("xen_blkfront", "xen_netfront")]
    tree: Tree = {
        "init": script("dom0-init.sh"),
        "dev/console": CharDevice(5, 1),
        "bin": Symlink("usr/bin"),
        "sbin": Symlink("usr/sbin"),
        "usr/bin/busybox": File(busybox, 0o755),
        "usr/bin/sh": Symlink("busybox"),
        "usr/sbin": Directory(),
        "usr/lib/smoke/agent": script("agent.sh"),
        "usr/lib/smoke/programs": File(programs.shell().encode()),
        "usr/lib/smoke/modules.order": File("".join(f"{name}\n" for name in names).encode()),
        "etc/passwd": File(b"root:x:0:0:root:/:/bin/sh\n"),
        "etc/group": File(b"root:x:0:\n"),
        "tmp": Directory(0o1777),
        "drive": Directory(),
        OF_SUITE: Directory(),
    }
    for name in names:
        tree[f"usr/lib/smoke/modules/{name}.ko"] = File(kernel.modules[name])
    return tree
