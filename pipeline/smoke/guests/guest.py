"""A guest that somebody has: its configuration, kernel and disks, laid out for the test host."""

from __future__ import annotations

import contextlib
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from pipeline.errors import UsageError
from pipeline.smoke.cpio import File, Tree
from pipeline.smoke.goods import OF_SUITE
from pipeline.smoke.guests.config import GuestConfig
from pipeline.smoke.guests.disk import Disk

FOLDER = "guests"
"""Where the files of guests are in the suite's goods."""
MAX_FILE = 256 << 20
"""Bytes of a kernel or a ramdisk."""
BRIDGE = "xenbr0"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
_FILES = ("kernel", "ramdisk", "device_tree")
_OF_PACKAGE = "/usr/lib/xen"
_OF_PROCESSORS = ("cpus", "cpus_soft", "pool")
"""Settings that bind a guest to processors of its host, and say nothing of the package."""
_OF_HOST = (
    *("pci", "usbdev", "usbctrl", "vtpm", "vscsi", "iomem", "ioports", "irqs", "dtdev", "p9", "gfx_passthru"),
    *("firmware_override", "bios_path_override", "acpi_firmware", "smbios_firmware", "pvshim_path"),
    *("device_model_override", "device_model_stubdomain_override"),
)
"""Settings that name devices and files of a guest's host that are not brought along."""


@dataclass(frozen=True)
class OwnGuest:
    """A guest: its file, name and settings, its kernel's files by the settings that name them, its disks."""

    path: Path
    name: str
    config: GuestConfig
    files: dict[str, Path]
    disks: tuple[Disk, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a configuration; files that it names are relative to its folder.

        Raises UsageError for what xl would not take, and for what of its host the test host has not.
        """
        config = GuestConfig.read(path)
        with _told_of(path):
            guest = cls._of(path, config)
            # What cannot be told there is told now.
            guest.placed([""] * len(guest.images), emulated=True)
        return guest

    def check(self) -> None:
        """Raise UsageError for files that are not there, and images that are none, or in use."""
        with _told_of(self.path):
            for key, file in self.files.items():
                _check_file(file, key)
            for disk in self.images:
                assert disk.target is not None
                _check_file(disk.target, "disk")
                disk.check()

    @classmethod
    def _of(cls, path: Path, config: GuestConfig) -> Self:
        folder = path.absolute().parent
        name = config.string("name")
        if not _NAME.fullmatch(name):
            raise UsageError(f"The guest has no name of letters, digits and _.+-: {name!r}.")
        if bound := [key for key in _OF_HOST if config.settings.get(key)]:
            raise UsageError(f"The test host cannot give a guest what {bound[0]!r} names.")
        files = {}
        for key in _FILES:
            file = PurePosixPath(config.string(key))
            # Of old, an HVM guest names the package's hvmloader.
            if file.name and file.name != "hvmloader" and not file.is_relative_to(_OF_PACKAGE):
                files[key] = folder / file
        disks = tuple(Disk.parse(text, folder) for text in config.strings("disk"))
        return cls(path, name, config, files, disks)

    @property
    def hvm(self) -> bool:
        """Whether it wants a whole machine, firmware and all."""
        return "hvm" in (self.config.string("type"), self.config.string("builder"))

    @property
    def needs_processor(self) -> bool:
        """Whether it runs only where the processor helps: HVM and PVH."""
        return self.hvm or self.config.string("type") == "pvh"

    @property
    def pygrub(self) -> bool:
        """Whether pygrub loads its kernel."""
        return PurePosixPath(self.config.string("bootloader")).name == "pygrub"

    @property
    def images(self) -> list[Disk]:
        """Its disks that have an image."""
        return [disk for disk in self.disks if disk.target]

    @property
    def memory(self) -> int:
        """The memory that it may have, in MiB; xl.cfg(5) says what it has where it says nothing."""
        return max(self.config.number("memory") or 32, self.config.number("maxmem"))

    @property
    def serial(self) -> str:
        """Where in dom0 its console is written to."""
        if self.hvm:
            return f"/var/log/xen/console/serial-{self.name}.log"
        return f"/var/log/xen/console/guest-{self.name}.log"

    def goods(self) -> Tree:
        """Return the files of its kernel, for the suite's goods. Raises UsageError."""
        try:
            return {
                f"{FOLDER}/{self.name}/{key}": File(path.read_bytes()) for key, path in self.files.items()
            }
        except OSError as e:
            raise UsageError(f"{e.filename} cannot be read: {e.strerror}.") from e

    def placed(self, devices: Sequence[str], *, emulated: bool) -> GuestConfig:
        """Return the configuration for the test host, where its images are the block devices ``devices``.

        Files are where the host has them, cards are on the host's one bridge, and nothing is bound to a
        processor. A guest that ends goes, so that it is seen, or starts anew. The serial port of an HVM guest
        is written to a file. pygrub asks nobody. ``emulated`` says that the host's processor is QEMU's.
        """
        left = iter(devices)
        config = self.config.without(*_OF_PROCESSORS).but(
            on_poweroff="destroy",
            on_crash="destroy",
            on_watchdog="destroy",
            on_reboot="destroy" if self.config.string("on_reboot") == "destroy" else "restart",
            **{key: f"/{OF_SUITE}/{FOLDER}/{self.name}/{key}" for key in self.files},
            disk=[disk.at(next(left) if disk.target else None) for disk in self.disks],
            vif=[bridged(card) for card in self.config.strings("vif")],
        )
        if self.pygrub and not config.string("bootargs"):
            config = GuestConfig({"bootloader_args": ["-q"], **config.settings})
        if self.hvm:
            config = config.but(serial=f"file:{self.serial}", vnc="0", sdl="0")
        if emulated and self.needs_processor:
            # Emulated SVM tells no length of RDTSCP, on which Xen would have to decode it, and does not.
            config = GuestConfig({"tsc_mode": "native", **config.settings})
        return config


@contextlib.contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """Say of a UsageError which guest it is about."""
    try:
        yield
    except UsageError as e:
        raise UsageError(f"{path}: {e.message}", hint=e.hint) from e


def _check_file(path: Path, key: str) -> None:
    """Raise UsageError where a setting names what cannot be read, or is of the wrong kind."""
    try:
        status = path.stat()
        with path.open("rb"):
            pass
    except OSError as e:
        raise UsageError(f"Its {key} {path} cannot be read: {e.strerror}.") from e
    except ValueError as e:
        raise UsageError(f"Its {key} has a name that no file has: {e}.") from e
    if not (stat.S_ISREG(status.st_mode) or (key == "disk" and stat.S_ISBLK(status.st_mode))):
        raise UsageError(f"Its {key} {path} is no file.")
    if key != "disk" and status.st_size > MAX_FILE:
        raise UsageError(f"Its {key} {path} has more than {MAX_FILE} B.")


def bridged(card: str) -> str:
    """Return what a guest's configuration says of a network card, with the test host's bridge."""
    parts = [part.strip() for part in card.split(",") if part.strip()]
    kept = [part for part in parts if not part.startswith(("bridge=", "script=", "backend=", "gatewaydev="))]
    return ",".join([*kept, f"bridge={BRIDGE}"])
