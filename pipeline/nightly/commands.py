"""The pipeline's own commands, each in a process of its own.

What one says is kept, its time is limited, and nothing that happens to it can take its caller's record along.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock
import msgspec

from pipeline import evidence, files, log
from pipeline.errors import HostError, TimeLimitError
from pipeline.run import run
from pipeline.settings import Settings
from pipeline.version import PROJECT

PROGRAM: tuple[str, ...] = (sys.executable, "-m", "pipeline", str(PROJECT))
"""What runs the commands; their words come after it."""
COMPILE_LOG = "compile.log"
HOST = "host"
"""The step that is the full tier of the smoke boots, and its folder in a build's."""
_LIMIT = 120.0
"""Minutes that a step may take where the settings do not say."""
_INPUTS = ("PKGBUILD.in", "containers", "package", "pipeline", "releases", "tasks.py")


@dataclass(frozen=True)
class Said:
    """How a command ended: its exit status, None where its time was up; and why, in a sentence."""

    status: int | None
    summary: str


@dataclass(frozen=True)
class Commands:
    """Runs commands with certain settings, and keeps what they say in ``folder``."""

    program: Sequence[str]
    settings: Settings
    folder: Path

    def run(self, name: str, words: Sequence[str], title: str, log_name: str) -> Said:
        """Run a command to its end; all that it says goes to the file ``log_name``."""
        own = self.folder / "settings.json"
        files.write_bytes(own, msgspec.json.encode({"pipeline": self.settings}) + b"\n")
        limit = self.settings.nightly.limits.get(name, _LIMIT) * 60
        last = ""
        path = self.folder / log_name
        with path.open("w", encoding="utf-8") as file, log.step(title):

            def on_line(line: str) -> None:
                nonlocal last
                file.write(line + "\n")
                file.flush()
                last = line or last
                log.info(line)

            argv = [*self.program, "-f", str(own), *words]
            try:
                status = run(argv, cwd=Path("/"), on_line=on_line, timeout=limit, expect=None).status
            except TimeLimitError as e:
                on_line(e.message)
                return Said(None, e.message)
        return Said(status, _error_line(path) or last)

    def compile_log(self, said: str) -> Path | None:
        """Take the whole log that a failed build names in what it said into the folder, and return it."""
        for line in (self.folder / said).read_text(encoding="utf-8", errors="replace").splitlines():
            _, mark, path = line.partition("The whole log: ")
            if mark and Path(path.strip()).is_file():
                kept = self.folder / COMPILE_LOG
                shutil.copyfile(path.strip(), kept)
                return kept
        return None


def words(step: str, release: str) -> tuple[str, ...]:
    """The command that a step after the build is, for a release's newest build."""
    return ("smoke", release, "--suite", "full") if step == HOST else (step, release)


def _error_line(path: Path) -> str:
    """The sentence that a failed command ended with."""
    found = ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        _, mark, text = line.partition("error: ")
        if mark and line.strip().startswith("error: "):
            found = text
    return found


@contextlib.contextmanager
def alone(folder: Path, what: str) -> Iterator[None]:
    """Let one run of ``what`` at a time work in a folder; raises HostError saying who is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / f".{what}.lock", blocking=False)
    owner = folder / f".{what}.owner"
    try:
        lock.acquire()
    except filelock.Timeout as e:
        with contextlib.suppress(OSError):
            raise HostError(
                f"Another {what} run is at work: {owner.read_text().strip()}.",
                hint="Wait for it; its steps have time limits.",
            ) from e
        raise HostError(f"Another {what} run is at work.") from e
    try:
        owner.write_text(f"process {os.getpid()}, since {evidence.now().isoformat()}\n")
        yield
    finally:
        lock.release()


def inputs(settings: Settings, *words: str) -> str:
    """Hash all but the commit that can change an outcome: the pipeline's files, settings, and ``words``."""
    digest = hashlib.sha256(" ".join(words).encode())
    for name in _INPUTS:
        top = PROJECT / name
        for path in sorted([top, *top.rglob("*")]):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    digest.update(msgspec.json.encode([settings.left_out, settings.packager, settings.nightly.steps]))
    return digest.hexdigest()
