"""Lay out the root file system of a host that has everything but Xen: systemd, a stock kernel, the agent.

The kernel and its initramfs have the names that Arch's packages give them.
"""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.files import link_or_copy
from pipeline.run import run
from pipeline.scratch import remove_tree
from pipeline.smoke.cpio import CharDevice, File, Tree, write_newc
from pipeline.smoke.kernel import trim_elf, unpack_bzimage, unpack_module
from pipeline.version import PROJECT

ROOT_UUID = "00000000-0000-4000-8000-000000000001"
"""The root file system's; etc/fstab names it too."""

INITRAMFS_MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")
"""What finds the root file system, in the order in which it is loaded."""
MODULES = (
    *INITRAMFS_MODULES,
    *("virtio_net", "virtio_console", "bridge", "loop", "tun", "vfat", "nls_cp437", "nls_ascii"),
    *("autofs4", "button", "fuse", "configfs", "efivarfs"),
    *("xen-evtchn", "xen-gntdev", "xen-gntalloc", "xen-privcmd", "xenfs", "xen-blkback", "xen-netback"),
    *("xen-pciback", "xen-acpi-processor"),
)
"""Of the kernel's hundreds of modules: those of this machine, and all that the package loads."""

LEFT_OUT = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "var/cache/apt",
    "var/lib/apt",
    # Debian's Xen, which its qemu brings along: the loader would take it for the package's programs.
    "usr/lib/x86_64-linux-gnu/libxen*",
    "usr/lib/xen-*",
)
"""What of the image nobody reads on this host, or must not; patterns."""

ENABLED = {
    "sysinit.target": ("smoke-agent@0.service", "smoke-agent@1.service"),
    "multi-user.target": ("systemd-networkd.service",),
    "network-online.target": ("systemd-networkd-wait-online.service",),
}
MASKED = (
    # What costs an emulated machine much, and has nothing to do with Xen.
    *("e2scrub_reap.service", "systemd-logind.service", "systemd-binfmt.service", "systemd-pstore.service"),
    *("proc-sys-fs-binfmt_misc.automount", "systemd-update-utmp.service", "udhcpd.service"),
    *(
        "getty-static.service",
        "getty@tty1.service",
        "serial-getty@ttyS0.service",
        "serial-getty@hvc0.service",
    ),
    *(
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
        "dpkg-db-backup.timer",
        "e2scrub_all.timer",
        "fstrim.timer",
    ),
)

_HERE = Path(__file__).parent
_UNITS = "/usr/lib/systemd/system"
_UNPACKED = "/tmp/kernel"  # noqa: S108
"""Where the programs of the root see the unpacked kernel package."""


@dataclass(frozen=True)
class Root:
    """A root file system in a folder; programs of it are run in it, by bubblewrap(1).

    A process of an ordinary user counts as root there, so that all files are root's.
    """

    path: Path

    def run(self, *argv: str, binds: Mapping[str, Path] | None = None) -> str:
        """Run a program as root, and return what it printed.

        ``binds`` are folders and files of this host by where they are seen. Raises CommandError and
        ToolMissingError.
        """
        user = [] if os.geteuid() == 0 else ["--unshare-user", "--uid", "0", "--gid", "0"]
        seen = [word for where, path in (binds or {}).items() for word in ("--bind", os.fspath(path), where)]
        # fmt: off
        sandbox = [
            "bwrap", *user, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--die-with-parent",
            "--bind", os.fspath(self.path), "/",
            "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",  # noqa: S108
            *seen,
            "--clearenv", "--setenv", "PATH", "/usr/sbin:/usr/bin", "--setenv", "LC_ALL", "C.UTF-8",
            "--",
        ]
        # fmt: on
        return run([*sandbox, *argv]).output


def lay_out(image_root: Path, kernel: Path, target: Path) -> None:
    """Make the root in a folder that is not there yet.

    ``image_root`` is the unpacked image of the host, ``kernel`` a Debian kernel package; the folder of
    ``target`` takes what is unpacked on the way. Raises CommandError, ToolMissingError, KernelImageError.
    """
    run(["cp", "--archive", image_root, target])
    for path in [path for pattern in LEFT_OUT for path in target.glob(pattern)]:
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            path.unlink()
    root = Root(target)
    unpacked = target.with_name("kernel")
    unpacked.mkdir()
    binds = {_UNPACKED: unpacked, "/tmp/kernel.deb": kernel}  # noqa: S108
    root.run("dpkg-deb", "--extract", "/tmp/kernel.deb", _UNPACKED, binds=binds)  # noqa: S108
    _install_kernel(root, unpacked)
    remove_tree(unpacked)
    shutil.copytree(_HERE / "root", target, dirs_exist_ok=True)
    _settings(target)


def _install_kernel(root: Root, unpacked: Path) -> None:
    if not (unpacked / "lib").exists():
        # Since Debian 13, a kernel's package has its modules where Arch's has them.
        (unpacked / "lib").symlink_to("usr/lib")
    (release,) = (path.name for path in (unpacked / "lib/modules").iterdir())
    root.run("depmod", "--basedir", _UNPACKED, release, binds={_UNPACKED: unpacked})
    boot = root.path / "boot"
    image = (unpacked / "boot" / f"vmlinuz-{release}").read_bytes()
    (boot / "vmlinuz-linux").write_bytes(image)
    for path in _with_dependencies(root, unpacked, release, MODULES):
        target = root.path / "usr" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(unpacked / path, target)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        path = f"lib/modules/{release}/{name}"
        link_or_copy(unpacked / path, root.path / "usr" / path)
    root.run("depmod", release)
    first = _with_dependencies(root, unpacked, release, INITRAMFS_MODULES)
    modules = {Path(path).name: unpack_module(path, (unpacked / path).read_bytes()) for path in first}
    busybox = (root.path / "usr/bin/busybox").read_bytes()
    initramfs = _initramfs("initramfs-init.sh", busybox, modules)
    (boot / "initramfs-linux.img").write_bytes(initramfs)
    guest = root.path / "usr/lib/smoke/guest"
    guest.mkdir(parents=True)
    # Unpacked, because unpacking it under emulation takes libxc 10 s.
    (guest / "vmlinux").write_bytes(trim_elf(unpack_bzimage(image)))
    (guest / "initramfs").write_bytes(_initramfs("guest-init.sh", busybox, {}))
    (guest / "no-driver").write_bytes(_initramfs("stuck-init.sh", busybox, {}))


def _with_dependencies(root: Root, unpacked: Path, release: str, modules: Sequence[str]) -> list[str]:
    """Return the files of modules and of what they need, in the order in which they are loaded."""
    asked = ("modprobe", "--dirname", _UNPACKED, "--set-version", release, "--show-depends", "--all")
    told = root.run(*asked, *modules, binds={_UNPACKED: unpacked})
    loads = [line.split()[1] for line in told.splitlines() if line.startswith("insmod ")]
    return [path.removeprefix(f"{_UNPACKED}/") for path in dict.fromkeys(loads)]


def _initramfs(init: str, busybox: bytes, modules: Mapping[str, bytes]) -> bytes:
    tree: Tree = {
        "init": File((_HERE / init).read_bytes(), 0o755),
        "bin/busybox": File(busybox, 0o755),
        "dev/console": CharDevice(5, 1),
        "modules/order": File("".join(f"{name}\n" for name in modules).encode()),
    }
    tree |= {f"modules/{name}": File(data) for name, data in modules.items()}
    return gzip.compress(write_newc(tree), 1, mtime=0)


def _settings(target: Path) -> None:
    """Put the agent in, and what `systemctl enable` and `mask` would write."""
    agent = target / "usr/lib/smoke/agent"
    shutil.copyfile(_HERE.parent / "agent.sh", agent)
    agent.chmod(0o755)
    network = target / "usr/lib/smoke/network"
    network.mkdir()
    for path in (PROJECT / "package").glob("xenbr0*.net*"):
        shutil.copy(path, network)
    system = target / "etc/systemd/system"
    for wanted_by, units in ENABLED.items():
        (system / f"{wanted_by}.wants").mkdir(exist_ok=True)
        for unit in units:
            template = f"{unit.partition('@')[0]}@.service" if "@" in unit else unit
            here = system / template
            (system / f"{wanted_by}.wants" / unit).symlink_to(
                f"/etc/systemd/system/{template}" if here.exists() else f"{_UNITS}/{unit}"
            )
    for unit in MASKED:
        (system / unit).unlink(missing_ok=True)
        (system / unit).symlink_to("/dev/null")
    # Kept from one start to the next, so that the journal is one.
    (target / "etc/machine-id").write_text("5f0c7a4e00004000800078656e736d6b\n")
    for folder in ("boot/grub", "boot/efi", "var/log/journal"):
        (target / folder).mkdir(parents=True, exist_ok=True)
