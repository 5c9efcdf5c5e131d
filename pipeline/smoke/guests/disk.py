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
_FLAGS = re.compile("direct-io-safe|(no-)?discard|no-colo|(un)?trusted|grant_usage=[01]")
_NAMED = ("format", "vdev", "access", "devtype", "backendtype", "specification")
_READ_ONLY, _WRITABLE = ("r", "ro"), ("w", "rw", "")


@dataclass(frozen=True)
class Disk:
    """One disk of a guest: its image (none: a drive without a medium), and how the guest sees it.

    ``flags`` are further parameters, which are for the xl under test to take or to refuse.
    """

    target: Path | None
    vdev: str
    format: str = "raw"
    cdrom: bool = False
    writable: bool = True
    flags: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, folder: Path) -> Self:
        """Read a specification; a target is relative to ``folder``. Raises UsageError."""
        try:
            return cls._of(text.lstrip(), folder)
        except ValueError as e:
            raise UsageError(f"The disk {text!r} {e}.", hint="See xl-disk-configuration(5).") from e

    @classmethod
    def _of(cls, text: str, folder: Path) -> Self:
        found: dict[str, str] = {}
        prefixed = _PREFIX.match(text)
        while match := _PREFIX.match(text):
            if match["format"]:
                _add(found, "format", match["format"])
            folder = Path("/dev") if match["device"] else folder
            text = text[match.end() :]
        if _OTHER_PREFIX.match(text):
            raise ValueError("is neither a file nor a block device")
        if prefixed:
            # What has a prefix has no format by position.
            found.setdefault("format", "raw")
        flags = _parameters(text, found)
        vdev, access, image = found.get("vdev", ""), found.get("access", ""), found.get("format") or "raw"
        kind = found.get("devtype", "disk")
        if not vdev or ":" in vdev or access not in (*_READ_ONLY, *_WRITABLE):
            raise ValueError("has no vdev, or an access that is none of r, ro, w and rw")
        if image not in (*FORMATS, "empty") or kind not in ("disk", "cdrom"):
            raise ValueError(f"has a format that is none of {', '.join(FORMATS)}, or an unknown devtype")
        if found.get("specification", "xen") != "xen":
            raise ValueError("is none of Xen's own kind")
        cdrom = kind == "cdrom"
        if image == "empty" or not found.get("target"):
            if not cdrom:
                raise ValueError("has no target")
            return cls(None, vdev, cdrom=True, writable=False, flags=flags)
        return cls(folder / found["target"], vdev, image, cdrom, access in _WRITABLE and not cdrom, flags)

    def at(self, device: str | None) -> str:
        """Return the specification, as any xl takes it, with the image at a block device of dom0."""
        vdev = f"{self.vdev}:cdrom" if self.cdrom else self.vdev
        target = f"phy:{device}" if device else ""
        return ",".join([target, vdev, "w" if self.writable else "r", *self.flags])

    def check(self) -> None:
        """Have QEMU look at the image. Raises UsageError where it is not one, or lies over another."""
        assert self.target is not None
        command = ["qemu-img", "info", "--output=json", "-f", FORMATS[self.format], str(self.target)]
        told = run(command, timeout=60, expect=None)
        if told.status != 0:
            reason = told.output.strip().splitlines()[-1]
            what = f"{self.target} is no image in the format {self.format}, or is in use."
            raise UsageError(what, hint=reason)
        image = json.loads(told.output)
        inside = image.get("format-specific", {}).get("data", {})
        if "backing-filename" in image or "data-file" in inside:
            hint = "Make it one file: qemu-img convert -O qcow2 FROM TO."
            raise UsageError(f"{self.target} needs another image, which is not brought along.", hint=hint)


def _parameters(text: str, found: dict[str, str]) -> tuple[str, ...]:
    """Add what a specification says to ``found``, by name; returns its flags. Raises ValueError."""
    flags: list[str] = []
    while text := text.lstrip():
        if text.startswith("target="):
            _add(found, "target", text.removeprefix("target=").removesuffix(","))
            break
        part, _, text = text.partition(",")
        name, equals, value = part.partition("=")
        if _FLAGS.fullmatch(part):
            flags.append(part)
        elif part == "cdrom":
            _add(found, "devtype", part)
        elif equals:
            if name not in _NAMED:
                raise ValueError(f"has a parameter that cannot be had here: {name}")
            _add(found, name, value)
            flags += [part] if name == "backendtype" else []
        else:
            _place(found, part)
    return tuple(flags)


def _place(found: dict[str, str], part: str) -> None:
    """Add a parameter without a name."""
    free = [position for position in _POSITIONS if position not in found]
    if free[:1] == ["format"] and not found["target"] and ":" in part:
        # A drive without a medium, as old files have it: ",hdc:cdrom,r".
        found["format"], free = "empty", ["vdev"]
    if not free:
        raise ValueError("has too many parts")
    if free[0] == "vdev" and ":" in part:
        part, _, kind = part.rpartition(":")
        _add(found, "devtype", kind)
    found[free[0]] = part


def _add(found: dict[str, str], name: str, value: str) -> None:
    if name in found and found[name] != value:
        raise ValueError(f"has two values for {name}")
    found[name] = value
