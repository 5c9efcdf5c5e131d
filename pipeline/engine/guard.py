"""The guard that runs a job's command inside its sandbox: what it is told, and what it tells.

See guard.pl, which does the work.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

from pipeline import log
from pipeline.engine.job import WORKSPACE, DiskQuotaError, EngineError, Job, NetworkAttemptError
from pipeline.run import TAIL_LINES

_SCRIPT = Path(__file__).with_name("guard.pl")
_PERL = "usr/bin/perl"
# Linux 5.19 or newer, on x86_64.
_SECCOMP, _PIDFD_GETFD = 317, 438
_SET_MODE_FILTER, _NEW_LISTENER, _WAIT_KILLABLE_RECV = 1, 8, 32
_MARK = "\x1exen-aur-pipeline"
_RESERVE = 256 << 20
"""Bytes that a job must leave free on the disk that its workspace is on."""
_PINNED = "Builds run with the network off: what one needs must be a source of its release."


def command(job: Job, root: Path) -> list[str]:
    """Return the command that runs a job under the guard, in the image whose root file system is ``root``.

    Without Perl in the image it is the job's own command: then an attempt to use the network is refused
    all the same, but has no name, the sandbox's own limits are the only ones, and folders have their order.
    """
    if not os.path.lexists(root / _PERL):
        log.info("The image has no Perl: the job is not watched for attempts to use the network.")
        return job.argv
    # By its text, as no folder is at the same place under every engine, and a file could be in the way.
    perl = [f"/{_PERL}", "-e", _SCRIPT.read_text(encoding="utf-8"), "--"]
    order = "reversed" if job.circumstances.reversed_folders else ""
    limits = (str(job.limits.disk), str(_RESERVE))
    return [*perl, job.circumstances.hostname, *limits, WORKSPACE, order, *job.argv]


def can_reverse(root: Path) -> bool:
    """Whether jobs in that root file system can be shown folders in reversed order on this host."""
    if not os.path.lexists(root / _PERL):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    # seccomp(2): of flags that it knows, it would next miss the program.
    libc.syscall(_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER | _WAIT_KILLABLE_RECV, None)
    if ctypes.get_errno() != errno.EFAULT:
        return False
    process = os.pidfd_open(os.getpid())
    copy = libc.syscall(_PIDFD_GETFD, process, process, 0)
    for number in {process, copy} - {-1}:
        os.close(number)
    return bool(copy >= 0)


class Told:
    """Passes a job's lines on, but for what the guard says, which `judge` makes an error of."""

    def __init__(self, on_line: Callable[[str], None], *, guarded: bool) -> None:
        self._on_line = on_line
        self._guarded = guarded
        self._last: deque[str] = deque(maxlen=TAIL_LINES)
        self._verdict: list[str] = []
        self._begun = False

    def line(self, line: str) -> None:
        """Take one line of the job's output."""
        if line == f"{_MARK}\tbegun":
            self._begun = True
            return
        if line.startswith(_MARK):
            self._verdict = line.split("\t")[1:]
            return
        self._last.append(line)
        self._on_line(line)

    @property
    def tail(self) -> str:
        """The last lines of the job itself."""
        return "\n".join(self._last)

    def judge(self, limit: int) -> None:
        """Raise what the guard has ended the job for; ``limit`` is the job's quota of disk, in bytes.

        A job may forge such a line, which ends nothing but itself. Raises NetworkAttemptError,
        DiskQuotaError, and EngineError: also where a guard was started and did not begin, so that how it
        ended is none of the job's doing.
        """
        tail = self.tail
        if self._guarded and not self._begun and not self._verdict:
            raise EngineError(
                f"The job's sandbox did not start: {self._last[-1] if self._last else 'nothing is said'}.",
                hint="./inv doctor tries whether sandboxes start on this host.\n" + tail,
            )
        match self._verdict:
            case ["network", name, line, address]:
                hint = f"The process was: {line}\n{_PINNED}\n{tail}".rstrip()
                raise NetworkAttemptError(f"{name} wanted the network, which is off: {address}.", hint)
            case ["disk", "quota", used] if used.isdigit():
                said = f"The job's files took {log.size(int(used))}, and it may have {log.size(limit)}."
                raise DiskQuotaError(said, hint=tail)
            case ["disk", "none", _]:
                raise DiskQuotaError(
                    "The disk that the job's workspace is on is full, and the job failed.",
                    hint=f"Free some space there: ./inv doctor says how much is needed.\n{tail}".rstrip(),
                )
            case ["disk", *_]:
                raise DiskQuotaError(
                    "The job was ended before it had filled the disk that its workspace is on.",
                    hint=f"Free some space there: ./inv doctor says how much is needed.\n{tail}".rstrip(),
                )
            case ["guard", reason]:
                raise EngineError(
                    f"The job could not be watched: {reason}.",
                    hint="Linux 5.5 or newer can, where nothing forbids seccomp.",
                )
