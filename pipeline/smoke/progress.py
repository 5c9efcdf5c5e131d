"""Measure time as a machine lives it, so that a busy host does not make a sound machine look hung.

The kernel counts how long each thread stood ready to run and was given no processor (the second number
of /proc/PID/task/TID/schedstat, Linux's Documentation/scheduler/sched-stats.rst). Where a limit is
given in seconds of the machine, that time does not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

BUSY = 0.25
"""Share of a processor above which a machine is at work; an idle dom0 under emulation takes a tenth."""


class Progress:
    """The clock of one process and its threads; `tick` has to be called now and then."""

    def __init__(
        self, pid: int, clock: Callable[[], float] = time.monotonic, proc: Path = Path("/proc")
    ) -> None:
        self._threads = proc / str(pid) / "task"
        self._clock = clock
        self._last = clock()
        self._seen: dict[str, tuple[int, int]] = {}
        self.seconds = 0.0
        """Seconds that the machine has had."""
        self.idle = 0.0
        """Seconds, of those, since it last was at work."""
        self.cpu = 0.0
        """Seconds of processor time that it has taken."""

    def tick(self) -> None:
        """Take in what has happened since the last call."""
        now = self._clock()
        passed, self._last = now - self._last, now
        ran, waited = self._read()
        self.cpu += ran
        mine = max(0.0, passed - min(waited, passed))
        self.seconds += mine
        self.idle = 0.0 if ran > BUSY * max(mine, 1e-9) else self.idle + mine

    def heard(self) -> None:
        """Note a sign of life."""
        self.idle = 0.0

    def _read(self) -> tuple[float, float]:
        """Return the seconds that all threads ran since the last call, and the longest wait of one."""
        ran, waited = 0, 0
        try:
            threads = list(self._threads.iterdir())
        except OSError:
            return 0.0, 0.0
        for thread in threads:
            try:
                on, off = (int(word) for word in (thread / "schedstat").read_text().split()[:2])
            except (OSError, ValueError):
                continue
            before = self._seen.get(thread.name, (on, off))
            self._seen[thread.name] = (on, off)
            ran += on - before[0]
            waited = max(waited, off - before[1])
        return ran / 1e9, waited / 1e9
