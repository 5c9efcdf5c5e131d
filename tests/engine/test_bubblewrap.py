"""What is bubblewrap's own: a sandbox that does not come up."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from pipeline.engine.bubblewrap import Bubblewrap
from pipeline.engine.job import EngineError, Job
from tests import programs
from tests.conftest import Tiny

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("instead", "said"),
    [
        ("echo 'bwrap: Creating new namespace failed: Operation not permitted' >&2; exit 1", "Operation not"),
        ("exit 0", "nothing is said"),
        ("kill -SEGV $$", "nothing is said"),
    ],
)
def test_a_sandbox_that_does_not_start_is_no_fault_of_the_build(
    tiny: Tiny, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, instead: str, said: str
) -> None:
    """If this fails, a host that forbids namespaces has every commit of a bisection found bad."""
    programs.instead(monkeypatch, tmp_path, "bwrap", instead)
    with pytest.raises(EngineError, match=said):
        Bubblewrap(tmp_path / "scratch").run(Job(("/bin/true",)), tiny.image, out, lambda _: None)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_sandbox_that_is_killed_is_no_fault_of_the_build(tiny: Tiny, tmp_path: Path, out: Path) -> None:
    """The kernel ends it where memory is short, and the build would be called bad."""
    scratch = tmp_path / "scratch"

    def kill(_: str) -> None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                line = path.read_bytes()
                if line.startswith(b"bwrap\0") and os.fsencode(scratch) in line:
                    os.kill(int(path.parent.name), signal.SIGKILL)

    with pytest.raises(EngineError, match=r"bwrap itself ended with signal 9|SIGKILL"):
        Bubblewrap(scratch).run(Job(("/bin/bash", "-c", "echo runs; sleep 60")), tiny.image, out, kill)
    assert list(scratch.iterdir()) == []
