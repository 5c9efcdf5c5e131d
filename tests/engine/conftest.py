"""An engine, an image that is quick to unpack, and ways to run scripts in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.engine.bubblewrap import Bubblewrap
from pipeline.engine.job import Engine, Job, Limits
from tests.conftest import Tiny

Run = Callable[..., list[str]]


@pytest.fixture(params=["bubblewrap", "docker"])
def engine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    if request.param == "bubblewrap":
        return Bubblewrap(tmp_path / "scratch")
    host = request.getfixturevalue("docker_host")
    if host:
        monkeypatch.setenv("DOCKER_HOST", host)
    from pipeline.engine.docker import Docker

    return Docker()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def run(engine: Engine, tiny: Tiny, tmp_path: Path, out: Path) -> Run:
    """Run a bash script as a job and return its lines; its output goes to ``out``."""

    def run(
        script: str,
        limits: Limits = Limits(seconds=90),  # noqa: B008
        cache: Path | None = None,
    ) -> list[str]:
        path = tmp_path / "script"
        path.write_text(script)
        lines: list[str] = []
        job = Job(("/bin/bash", "in/script"), {"in/script": path}, limits=limits, cache=cache)
        engine.run(job, tiny.image, out, lines.append)
        return lines

    return run


def processes(word: str) -> list[str]:
    """The processes on this host with that word in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if word in line:
            found.append(line)
    return found
