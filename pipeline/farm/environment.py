"""Buildbot's own Python environment, from the hashed lock in farm/."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

import filelock

from pipeline import log
from pipeline.errors import CommandError, HostError, UsageError
from pipeline.run import run
from pipeline.version import PROJECT

FARM = PROJECT / "farm"
_LOCK = FARM / "requirements.lock"
_READY = "ready"


def programs(store: Path) -> Path:
    """Return the folder of Buildbot's programs, which are installed on first use.

    Raises HostError, and UsageError where Buildbot cannot work there.
    """
    digest = hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:12]
    (store / "farm").mkdir(parents=True, exist_ok=True)
    folder = (store / "farm").resolve() / digest
    # Its database library takes the path of its own scripts for a list with spaces between.
    if any(c.isspace() for c in str(folder)):
        raise UsageError(
            f"Buildbot cannot be installed in {folder}: the path has a space in it.",
            hint="The setting `store` names another place.",
        )
    with filelock.FileLock(folder.with_suffix(".lock")):
        if not (folder / _READY).exists():
            with log.step("Buildbot's Python environment"):
                _install(folder)
    return folder / "bin"


def _install(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    pip = ["pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps", "--require-hashes"]
    try:
        run([sys.executable, "-m", "venv", folder])
        run([folder / "bin" / "python", "-m", *pip, "--requirement", _LOCK])
    except CommandError as e:
        raise HostError("Buildbot could not be installed.", hint=e.hint) from e
    (folder / _READY).touch()
