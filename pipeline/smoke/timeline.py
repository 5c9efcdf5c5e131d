"""Read out of a serial log how long each phase of a boot took."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from pipeline.smoke.serial import Line, is_guest

_ENTRY = re.compile(r"\[ *(\d{1,9}\.\d{3})\] (.*)", re.DOTALL)


class Stage(Enum):
    """What runs in a phase, and a pattern of the lines that its begin is seen by; in order.

    What comes before Xen's first line is firmware: QEMU's own start, SeaBIOS, iPXE, UEFI, GRUB.
    """

    FIRMWARE = ("firmware", r"")
    XEN = ("Xen", r"\(XEN\) |^ Xen \d+\.\d+")
    KERNEL = (
        "dom0 kernel",
        r"\(XEN\) (\[[^]]*\] )?(\*\*\* Serial input to DOM0|Xen is relinquishing|Freed \d+kB init memory)"
        r"|mapping kernel into physical memory|Linux version \d",
    )
    USERSPACE = ("userspace", r"smoke: |Run /\S+ as init process|systemd\[1\]: |Welcome to ")
    SERVICES = (
        "services",
        r"smoke: (services|xenfs|xenstored|init-dom0|xenconsoled)"
        r"|(Starting|Mounting|Started|Mounted) .*([Xx]en|oxenstored)",
    )
    READY = (
        "ready",
        r"smoke: services: done|Reached target .*([Mm]ulti-[Uu]ser|Graphical)|^\S+ login: *$",
    )

    def __init__(self, title: str, pattern: str) -> None:
        self.title = title
        self.pattern = re.compile(pattern)


@dataclass(frozen=True)
class Phase:
    """A part of a boot, in seconds since the machine was started."""

    stage: Stage
    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.begin


def read_log(text: str) -> Iterator[Line]:
    """Yield the lines of a serial log, as SerialWatcher writes it; what has no time is passed over."""
    for line in text.split("\n"):
        if (match := _ENTRY.fullmatch(line)) is not None:
            yield Line(float(match[1]), match[2])


def phases(lines: Iterable[Line]) -> tuple[Phase, ...]:
    """Return a boot's phases: each begins where the one before ends, the first at zero.

    One that left no mark is not among them. The last ends when dom0 is ready, or with the last line.
    """
    todo = list(Stage)[1:]
    begins: list[tuple[Stage, float]] = [(Stage.FIRMWARE, 0.0)]
    last = 0.0
    for line in lines:
        # A clock does not run backwards; a log that was tampered with may.
        last = max(last, line.seconds)
        if is_guest(line.text):
            continue
        found = next((stage for stage in reversed(todo) if stage.pattern.search(line.text)), None)
        # Only what follows can come next, so that nothing is taken for an earlier stage of the boot.
        if found is not None and _may_follow(begins[-1][0], found):
            begins.append((found, last))
            todo = todo[todo.index(found) + 1 :]
            if found is Stage.READY:
                break
    ends = [begin for _, begin in begins[1:]] + [last]
    found_phases = (Phase(stage, begin, end) for (stage, begin), end in zip(begins, ends, strict=True))
    return tuple(phase for phase in found_phases if phase.stage is not Stage.READY)


def _may_follow(before: Stage, after: Stage) -> bool:
    """Without Xen there is no dom0: a firmware or boot loader that prints its words starts nothing."""
    return before is not Stage.FIRMWARE or after is Stage.XEN
