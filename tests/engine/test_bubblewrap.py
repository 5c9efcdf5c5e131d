"""What is bubblewrap's own: a sandbox that does not come up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.engine.bubblewrap import Bubblewrap
from pipeline.engine.job import EngineError, Job
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
    program = tmp_path / "bin" / "bwrap"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{instead}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with pytest.raises(EngineError, match=said):
        Bubblewrap(tmp_path / "scratch").run(Job(("/bin/true",)), tiny.image, out, lambda _: None)
    assert list((tmp_path / "scratch").iterdir()) == []
