"""What a piece of work costs, with all the processes that it leaves behind."""

from __future__ import annotations

import ctypes
import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_PR_SET_CHILD_SUBREAPER = 36
"""prctl(2): orphans below become this process's children: a sandbox's, and a command's daemons."""


@dataclass(frozen=True)
class Cost:
    """Seconds of CPU and of time."""

    cpu: float
    time: float


def measure(work: Callable[[], object]) -> Cost:
    """Do a piece of work, wait for all processes that it leaves, and return what they took together."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    work()
    seconds = time.monotonic() - start
    while any(_orphans()):
        time.sleep(0.1)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, seconds)


def _orphans() -> Iterator[bool]:
    """Wait for what has ended, and tell of each that has not."""
    try:
        while (pid := os.waitpid(-1, os.WNOHANG)[0]) >= 0:
            if pid == 0:
                yield True
                return
    except ChildProcessError:
        return
