"""A guest's disks: what xl-disk-configuration(5) says of each, and the images behind them.

A specification is a list parted by commas: parameters by name, and what has none by position (target, format,
vdev, access). ``target=`` takes all that follows. Older ones begin with a prefix such as ``phy:`` and have no
format.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pipeline.errors import UsageError
from pipeline.run import run

FORMATS = {"raw": "raw", "qcow": "qcow", "qcow2": "qcow2", "vhd": "vpc", "qed": "qed"}
"""xl's names of what images are in, and QEMU's."""
_POSITIONS = ("target", "format", "vdev", "access")
_PREFIX = re.compile(r"(?:(?P<format>raw|qcow2?|vhd)|tapdisk|tap2?|aio|ioemu|file|(?P<device>phy)):")
_OTHER_PREFIX = re.compile(r"(?:iscsi|e?nbd|drbd):|[a-z][a-z0-9]*:(?![a-z0-9])")
_FLAGS = ("direct-io-safe", "discard", "no-discard", "trusted", "untrusted")
_READ_ONLY, _WRITABLE = ("r", "ro"), ("w", "rw", "")


@dataclass(frozen=True)
class Disk:
    """One disk of a guest: its image (none: a drive without a medium), and how the guest sees it."""

    target: Path | None
    vdev: str
    format: str = "raw"
    cdrom: bool = False
    writable: bool = True

    @classmethod
    def parse(cls, text: str, folder: Path) -> Self:
        """Read a specification; a target is relative to ``folder``. Raises UsageError."""
        try:
            return cls._of(text.strip(), folder)
        except ValueError as e:
            raise UsageError(f"The disk {text!r} {e}.", hint="See xl-disk-configuration(5).") from e

    @classmethod
    def _of(cls, text: str, folder: Path) -> Self:
        found: dict[str, str] = {}
        while match := _PREFIX.match(text):
            # What has a prefix has no format by position.
            found |= {"format": match["format"] or found.get("format", "raw")}
            folder = Path("/dev") if match["device"] else folder
            text = text[match.end() :]
        if _OTHER_PREFIX.match(text):
            raise ValueError("is neither a file nor a block device")
        found |= _parameters(text, tuple(name for name in _POSITIONS if name not in found))
        if found.get("script") or found.get("specification", "xen") != "xen":
            raise ValueError("is neither a file nor a block device of the usual kind")
        vdev, _, kind = found.get("vdev", "").partition(":")
        access, image = found.get("access", ""), found.get("format") or "raw"
        if not vdev or access not in (*_READ_ONLY, *_WRITABLE):
            raise ValueError("has no vdev, or an access that is none of r, ro, w and rw")
        if image not in (*FORMATS, "empty"):
            raise ValueError(f"has a format that is none of {', '.join(FORMATS)}")
        cdrom = "cdrom" in (kind, found.get("devtype"))
        if image == "empty" or not found.get("target"):
            if not cdrom:
                raise ValueError("has no target")
            return cls(None, vdev, cdrom=True, writable=False)
        target = folder / Path(found["target"]).expanduser()
        return cls(target, vdev, image, cdrom, access in _WRITABLE and not cdrom)

    def at(self, device: str) -> str:
        """Return the specification, as any xl takes it, with the image at a block device of dom0."""
        vdev = f"{self.vdev}:cdrom" if self.cdrom else self.vdev
        return f"phy:{device},{vdev},{'w' if self.writable else 'r'}" if self.target else f",{vdev},r"

    def check(self) -> None:
        """Have QEMU look at the image. Raises UsageError where it is not one, or lies over another."""
        assert self.target is not None
        if not (self.target.is_file() or self.target.is_block_device()):
            raise UsageError(f"There is no image {self.target}.")
        command = ["qemu-img", "info", "--output=json", "-U", "-f", FORMATS[self.format], str(self.target)]
        told = run(command, timeout=60, expect=None)
        if told.status != 0:
            reason = told.output.strip().splitlines()[-1]
            raise UsageError(f"{self.target} is no image in the format {self.format}.", hint=reason)
        if "backing-filename" in json.loads(told.output):
            hint = "Make it one file: qemu-img convert -O qcow2 FROM TO."
            raise UsageError(f"{self.target} lies over another image, which is not brought along.", hint=hint)


def _parameters(text: str, positions: tuple[str, ...]) -> dict[str, str]:
    """Return what a specification says, by name. Raises ValueError."""
    found: dict[str, str] = {}
    while text:
        if text.startswith("target="):
            return found | {"target": text.removeprefix("target=")}
        part, _, text = text.partition(",")
        part, text = part.strip(), text.lstrip()
        name, equals, value = part.partition("=")
        if name in _FLAGS:
            continue
        if part == "cdrom":
            found["devtype"] = part
        elif equals and re.fullmatch("[a-z][-a-z0-9]*", name):
            found[name] = value
        else:
            free = [position for position in positions if position not in found]
            if free[:1] == ["format"] and not found.get("target") and ":" in part:
                # A drive without a medium, as old files have it: ",hdc:cdrom,r".
                found["format"], free = "empty", ["vdev"]
            if not free:
                raise ValueError("has too many parts")
            found[free[0]] = part
    return found
