"""Read the serial line: cut it into lines, stamp them, and notice at once when something died.

Whatever comes over the line is data from outside: lines and the log as a whole are bounded, and text
of guests is never taken for text of Xen or dom0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import BinaryIO

from pipeline.errors import PipelineError
from pipeline.smoke.errors import Dom0PanicError, XenPanicError

MAX_LINE = 4096
"""Bytes after which a line without an end is cut."""
MAX_LOG = 32 << 20
"""Bytes after which the log is no longer written; lines are still looked at."""

_BANNER = re.compile(r"\(XEN\) Xen version (\S+) \(")
# Xen marks what a guest printed through it with (dN); that must not pass for Xen or dom0.
_GUEST = re.compile(r"^\s*\(d[1-9]\d*(v\d+)?\) ")
_XEN_LINE = re.compile(r"\(XEN\) (?:\[[^\]]*\] )?(.*)")
_XEN_FATAL = re.compile(
    r"Panic on CPU \d+:|FATAL TRAP:|FATAL PAGE FAULT|Xen BUG at |Assertion '.*' failed at |"
    r"\*\*\* DOUBLE FAULT \*\*\*"
)
_UNTOLD = re.compile(r"Panic on CPU \d+:$")
"""Why Xen panicked stands in the next line."""
_DOM0_CRASHED = re.compile(
    r"Domain 0 \(vcpu#\d+\) crashed on cpu|Hardware Dom0 crashed|Hardware Dom0 shutdown: watchdog"
)
_LINUX_FATAL = re.compile(
    r"Kernel panic - not syncing|BUG: unable to handle |BUG: kernel NULL pointer|kernel BUG at |"
    r"Oops: [0-9a-f]{4} \[#|general protection fault.*: [0-9a-f]{4} \[#|invalid opcode: [0-9a-f]{4} \[#"
)


@dataclass(frozen=True)
class Line:
    """One line, and when its end came, in seconds since the machine was started."""

    seconds: float
    text: str


def is_guest(text: str) -> bool:
    """Whether a line of the serial log is what a guest printed through Xen."""
    return _GUEST.match(text) is not None


def classify(text: str) -> PipelineError | None:
    """Return the failure that a line of the serial log tells of, or None for an ordinary line."""
    if is_guest(text):
        return None
    xen = _XEN_LINE.search(text)
    if xen is not None:
        message = xen[1].strip()
        # A panic message may say that dom0 was the cause; it is Xen that went down nevertheless.
        if _XEN_FATAL.search(message):
            return XenPanicError(f"Xen panicked: {message}")
        if _DOM0_CRASHED.search(message):
            return Dom0PanicError(f"Xen stopped dom0: {message}")
        return None
    if _LINUX_FATAL.search(text):
        return Dom0PanicError(f"The kernel of dom0 died: {text.strip()}")
    return None


def _more(text: str) -> str:
    """What a line of Xen's says, if it says anything."""
    xen = None if is_guest(text) else _XEN_LINE.search(text)
    return xen[1].strip() if xen is not None and re.search(r"\w", xen[1]) else ""


@dataclass
class SerialWatcher:
    """Takes the bytes of the serial line as they come.

    Writes each line to ``log`` as ``[seconds] text``. ``fault`` is the first failure seen, ``banner``
    the version that Xen says it is, ``tail`` the last lines.
    """

    log: BinaryIO | None = None
    banner: str | None = None
    fault: PipelineError | None = None
    heard_xen: float | None = None
    lines: int = 0
    tail: list[Line] = field(default_factory=list)
    _rest: bytes = b""
    _written: int = 0

    def feed(self, data: bytes, seconds: float) -> list[Line]:
        """Take bytes that came ``seconds`` after the start; return the lines they completed."""
        self._rest += data
        done: list[Line] = []
        while True:
            end = self._rest.find(b"\n", 0, MAX_LINE)
            if end < 0 and len(self._rest) < MAX_LINE:
                return done
            cut = end if end >= 0 else MAX_LINE
            raw, self._rest = self._rest[:cut], self._rest[cut + (end >= 0) :]
            done.append(self._take(raw, seconds))

    def finish(self, seconds: float) -> None:
        """Take what is left without an end of line: a machine can die in the middle of one."""
        if self._rest:
            self._take(self._rest, seconds)
            self._rest = b""

    def _take(self, raw: bytes, seconds: float) -> Line:
        text = "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in _decode(raw))
        line = Line(seconds, text)
        self.lines += 1
        self.tail.append(line)
        del self.tail[:-200]
        self._write(line)
        if self.fault is None:
            self.fault = classify(text)
        elif _UNTOLD.search(self.fault.message) and (more := _more(text)):
            self.fault = XenPanicError(f"{self.fault.message} {more}")
        if self.heard_xen is None and "(XEN)" in text:
            self.heard_xen = seconds
        # Only the first banner counts: anything that prints later could claim to be Xen.
        if self.banner is None and not is_guest(text) and (match := _BANNER.search(text)):
            self.banner = match[1]
        return line

    def _write(self, line: Line) -> None:
        if self.log is None or self._written > MAX_LOG:
            return
        entry = f"[{line.seconds:10.3f}] {line.text}\n".encode()
        self._written += len(entry)
        if self._written > MAX_LOG:
            entry = b"(the log is full; later lines were looked at, but not kept)\n"
        self.log.write(entry)
        self.log.flush()


def _decode(raw: bytes) -> str:
    return raw.strip(b"\r").decode(errors="replace")
