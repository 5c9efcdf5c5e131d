"""Describe a virtual machine: what it boots, its disks, its network, its screen; and QEMU's command line.

A description says nothing of where a machine runs. The files that it names are laid into the machine's
folder under fixed names, because QEMU splits -initrd at commas, and so that the same machine has the same
command line everywhere: a snapshot is found again by it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.files import write_bytes
from pipeline.run import run
from pipeline.smoke.accelerator import Accelerator
from pipeline.smoke.dom0 import BootFiles

XEN_OPTIONS = "console=com1 com1=115200,8n1 loglvl=info guest_loglvl=info dom0_max_vcpus=1"
"""Options of Xen that leave ``noreboot`` out: with it, QEMU would hang on a crash instead of ending."""
KERNEL_OPTIONS = "console=hvc0 quiet panic=5"


@dataclass(frozen=True)
class Direct:
    """Xen, dom0's kernel and its initramfs, handed over by QEMU as a multiboot loader would.

    ``dom0_memory`` is in MiB. Without an initramfs, the kernel is all there is (an XTF test, say).
    """

    xen: Path
    kernel: Path
    initramfs: Path | None
    dom0_memory: int = 384
    xen_options: str = XEN_OPTIONS
    kernel_options: str = KERNEL_OPTIONS

    @classmethod
    def write(cls, files: BootFiles, folder: Path, dom0_memory: int = 384) -> Direct:
        """Write boot files to a folder, for any number of machines."""
        for name in ("xen", "kernel", "initramfs"):
            write_bytes(folder / name, getattr(files, name))
        return cls(folder / "xen", folder / "kernel", folder / "initramfs", dom0_memory)

    def arguments(self) -> list[str]:
        """Return the arguments of QEMU that boot it."""
        memory = f"dom0_mem={self.dom0_memory}M,max:{self.dom0_memory}M"
        initrd = f"kernel {self.kernel_options}" + (",initramfs" if self.initramfs else "")
        return ["-kernel", "xen", "-append", f"{self.xen_options} {memory}", "-initrd", initrd]

    def files(self) -> Iterator[tuple[str, Path]]:
        """Yield the files that QEMU reads, by the name that it finds them under."""
        yield "xen", self.xen
        yield "kernel", self.kernel
        if self.initramfs:
            yield "initramfs", self.initramfs


@dataclass(frozen=True)
class Linux:
    """A Linux kernel without Xen and its initramfs, handed over by QEMU."""

    kernel: Path
    initramfs: Path
    options: str

    def arguments(self) -> list[str]:
        """Return the arguments of QEMU that boot it."""
        return ["-kernel", "kernel", "-initrd", "initramfs", "-append", self.options]

    def files(self) -> Iterator[tuple[str, Path]]:
        """Yield the files that QEMU reads, by the name that it finds them under."""
        yield "kernel", self.kernel
        yield "initramfs", self.initramfs


@dataclass(frozen=True)
class Firmware:
    """A firmware that finds its boot loader on a drive: SeaBIOS, or the UEFI firmware in a file."""

    uefi: Path | None = None

    def arguments(self) -> list[str]:
        """Return the arguments of QEMU that boot it."""
        return ["-bios", "firmware"] if self.uefi else []

    def files(self) -> Iterator[tuple[str, Path]]:
        """Yield the files that QEMU reads, by the name that it finds them under."""
        if self.uefi:
            yield "firmware", self.uefi


@dataclass(frozen=True)
class Drive:
    """A disk image; a machine writes to an overlay in its folder, and never to the image.

    A machine that is started in the same folder again goes on with the overlay that it finds. ``format`` is
    QEMU's name of what the image is in; a CD is raw. ``foreign`` is one that others write to at any time.
    """

    image: Path
    cdrom: bool = False
    format: str = "raw"
    foreign: bool = False


@dataclass(frozen=True)
class Hardware:
    """A virtual machine; ``memory`` is in MiB, ``chipset`` QEMU's -machine (pc or q35).

    ``screen`` gives it a VGA card, of which screenshots can be made; ``network`` a card that reaches
    nothing but QEMU's own DHCP and DNS; ``extra`` is appended to QEMU's command line.
    """

    boot: Direct | Linux | Firmware
    memory: int = 768
    cpus: int = 1
    chipset: str = "pc"
    drives: tuple[Drive, ...] = ()
    network: bool = False
    screen: bool = False
    extra: tuple[str, ...] = ()

    def lay_out(self, folder: Path, saved: Path | None = None) -> None:
        """Put the files into a machine's folder: links to those that are read, overlays for drives.

        ``saved`` is a folder that `keep_overlays` filled; new overlays are then laid over those.
        """
        for name, path in self.boot.files():
            _link(path, folder / name)
        for number, drive in enumerate(self.drives):
            _link(drive.image, folder / f"drive{number}")
            if drive.cdrom or (folder / overlay_name(number)).exists():
                continue
            below, kind = f"drive{number}", drive.format
            for layer in _layers(saved, number) if saved else ():
                _link(layer, folder / layer.name)
                below, kind = layer.name, "qcow2"
            make_overlay(folder / overlay_name(number), below, kind)

    def keep_overlays(self, folder: Path, saved: Path) -> None:
        """Copy the overlays of a machine that stands still, with those that they were laid over."""
        for number, drive in enumerate(self.drives):
            if drive.cdrom:
                continue
            layers = _layers(folder, number)
            for layer in layers:
                _link(layer, saved / layer.name)
            shutil.copyfile(folder / overlay_name(number), saved / f"drive{number}.{len(layers)}.qcow2")

    def arguments(
        self, accelerator: Accelerator, serial: int, agents: tuple[int, ...], monitor: int
    ) -> list[str]:
        """Return QEMU's command line; the last three are descriptors of connected sockets."""
        arguments = [
            *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot"),
            *("-accel", accelerator.qemu_option),
            *accelerator.qemu_clock,
            *("-machine", self.chipset),
            *("-cpu", accelerator.qemu_cpu),
            *("-m", str(self.memory)),
            *("-smp", str(self.cpus)),
            *("-display", "none"),
            *("-vga", "std" if self.screen else "none"),
            *("-chardev", f"socket,id=serial,fd={serial}"),
            *("-serial", "chardev:serial"),
            *("-device", "virtio-serial-pci"),
        ]
        for number, agent in enumerate(agents):
            arguments += ["-chardev", f"socket,id=agent{number},fd={agent}"]
            arguments += ["-device", f"virtserialport,chardev=agent{number},name=smoke.agent{number}"]
        arguments += ["-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"]
        for number, drive in enumerate(self.drives):
            arguments += _drive_arguments(number, drive)
        if self.network:
            arguments += [
                "-netdev",
                "user,id=net,restrict=on",
                "-device",
                "virtio-net-pci,netdev=net,romfile=",
            ]
        else:
            arguments += ["-net", "none"]
        return [*arguments, *self.boot.arguments(), *self.extra]


def overlay_name(number: int) -> str:
    """Return the name of a drive's overlay in a machine's folder."""
    return f"drive{number}.qcow2"


def make_overlay(overlay: Path, below: str, kind: str) -> None:
    """Make an empty layer over an image of a kind (raw or qcow2), named relative to the overlay's folder."""
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", kind, overlay.name]
    run(command, cwd=overlay.parent, timeout=60)


def _layers(folder: Path, number: int) -> list[Path]:
    """Return the layers below a drive's overlay that a folder has, the lowest first."""
    return sorted(folder.glob(f"drive{number}.*.qcow2"), key=lambda path: int(path.name.split(".")[1]))


def _drive_arguments(number: int, drive: Drive) -> list[str]:
    if drive.cdrom:
        return ["-drive", f"file=drive{number},format=raw,media=cdrom,readonly=on"]
    # Not flushed to the host's disk: nothing of a machine outlives a crash of the host anyway.
    backend = f"file={overlay_name(number)},format=qcow2,if=none,id=drive{number},cache=unsafe"
    return ["-drive", backend, "-device", f"virtio-blk-pci,drive=drive{number}"]


def _link(target: Path, link: Path) -> None:
    link.unlink(missing_ok=True)
    try:
        link.hardlink_to(target.resolve())
    except OSError:
        # On another file system.
        link.symlink_to(target.resolve())
