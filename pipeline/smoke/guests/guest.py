"""A guest that somebody has: its configuration, and all that this names, laid out for the test host."""

from __future__ import annotations

import re
from collections.abc import Sequence
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
MAX_FILE = 1 << 30
"""Bytes of a kernel or a ramdisk."""
BRIDGE = "xenbr0"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
_FILES = ("kernel", "ramdisk", "device_tree")


@dataclass(frozen=True)
class OwnGuest:
    """A guest: its name, its settings, its kernel's files by the settings that name them, and its disks."""

    name: str
    config: GuestConfig
    files: dict[str, Path]
    disks: tuple[Disk, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a configuration; files that it names are relative to its folder.

        Raises UsageError for what xl would not take, and for files that are not there.
        """
        config = GuestConfig.read(path)
        name = config.string("name")
        if not _NAME.fullmatch(name):
            raise UsageError(f"{path} gives its guest no name of letters, digits and _.+-: {name!r}.")
        files = {}
        for key in _FILES:
            file = config.string(key)
            # Of old, an HVM guest names the package's hvmloader.
            if not file or PurePosixPath(file).name == "hvmloader":
                continue
            files[key] = path.parent / Path(file).expanduser()
            if not files[key].is_file() or files[key].stat().st_size > MAX_FILE:
                raise UsageError(f"{path} names a {key} that is no file here: {files[key]}.")
        disks = tuple(Disk.parse(text, path.parent) for text in config.strings("disk"))
        for disk in disks:
            if disk.target:
                disk.check()
        guest = cls(name, config, files, disks)
        guest.memory  # noqa: B018  # Told now, where it is no number.
        return guest

    @property
    def hvm(self) -> bool:
        """Whether it wants a whole machine, firmware and all."""
        return "hvm" in (self.config.string("type"), self.config.string("builder"))

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

        Files are where the host has them, cards are on the host's one bridge, and a guest that crashes goes.
        An HVM guest has its serial port written to a file. pygrub asks nobody.
        ``emulated`` says that the host's processor is QEMU's.
        """
        left = iter(devices)
        config = self.config.but(
            on_crash="destroy",
            **{key: f"/{OF_SUITE}/{FOLDER}/{self.name}/{key}" for key in self.files},
            disk=[disk.at(next(left) if disk.target else "") for disk in self.disks],
            vif=[bridged(card) for card in self.config.strings("vif")],
        )
        if PurePosixPath(config.string("bootloader")).name == "pygrub" and not config.string("bootargs"):
            config = GuestConfig({"bootloader_args": ["-q"], **config.settings})
        if self.hvm:
            config = config.but(serial=f"file:{self.serial}", vnc="0", sdl="0")
        if emulated and (self.hvm or config.string("type") == "pvh"):
            # Emulated SVM tells no length of RDTSCP, on which Xen would have to decode it, and does not.
            config = GuestConfig({"tsc_mode": "native", **config.settings})
        return config


def bridged(card: str) -> str:
    """Return what a guest's configuration says of a network card, with the test host's bridge."""
    parts = [part.strip() for part in card.split(",") if part.strip()]
    kept = [part for part in parts if not part.startswith(("bridge=", "script=", "backend=", "gatewaydev="))]
    return ",".join([*kept, f"bridge={BRIDGE}"])
