"""Time as a machine lives it: on a busy host, a limit must not strike a machine that only waits its turn."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipeline.smoke.progress import Progress


class Threads:
    """A /proc of one process, and a clock, both set by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, 0.0

    def set(self, seconds: float, **threads: tuple[float, float]) -> None:
        """Say what the clock and each thread's schedstat show: seconds run, seconds waited."""
        self.now = seconds
        for name, (ran, waited) in threads.items():
            file = self.folder / "1/task" / name / "schedstat"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{int(ran * 1e9)} {int(waited * 1e9)} 5\n")

    def progress(self) -> Progress:
        return Progress(1, lambda: self.now, self.folder)


def test_time_spent_waiting_for_a_processor_does_not_count(tmp_path: Path) -> None:
    """If this fails, a busy host makes sound packages fail."""
    threads = Threads(tmp_path)
    threads.set(0, main=(0, 0), cpu=(0, 0))
    progress = threads.progress()
    progress.tick()
    threads.set(10, main=(0.1, 1), cpu=(2, 8))
    progress.tick()
    assert (round(progress.seconds, 6), round(progress.cpu, 6)) == (2, 2.1)
    assert progress.idle == 0


def test_a_machine_that_does_nothing_is_idle(tmp_path: Path) -> None:
    """If this fails, a command that hangs costs the whole of its limit instead of seconds."""
    threads = Threads(tmp_path)
    threads.set(0, cpu=(5, 0))
    progress = threads.progress()
    progress.tick()
    for second in range(1, 9):
        threads.set(second, cpu=(5 + second / 50, 0))
        progress.tick()
    assert (round(progress.seconds, 6), round(progress.idle, 6)) == (8, 8)
    threads.set(9, cpu=(6.2, 0))
    progress.tick()
    assert progress.idle == 0


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1e4), st.floats(0, 1e4)), max_size=8))
def test_it_never_runs_backwards_or_ahead_of_the_clock(steps: list[tuple[float, float, float]]) -> None:
    """If this fails, a limit never strikes, or strikes too early."""
    now, ran, waited = 0.0, 0, 0
    progress = Progress(1, lambda: now)
    progress._read = lambda: (ran, waited)  # type: ignore[method-assign]
    for passed, ran_more, waited_more in steps:
        before = progress.seconds
        now, ran, waited = now + passed, ran_more, waited_more  # type: ignore[assignment]
        progress.tick()
        assert before <= progress.seconds <= now + 1e-6


def test_the_kernel_really_tells(tmp_path: Path) -> None:
    """If this fails, this host does not say how long a thread waited, and limits count every second."""
    spinners = [
        subprocess.Popen(["sh", "-c", "while :; do :; done"])
        for _ in range(2 * len(os.sched_getaffinity(0)) + 1)
    ]
    try:
        progress = Progress(spinners[0].pid)
        progress.tick()
        time.sleep(2)
        progress.tick()
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()
    assert progress.cpu > 0
    assert progress.seconds < 1.95
    gone = Progress(spinners[0].pid)
    gone.tick()
    assert gone.cpu == 0
