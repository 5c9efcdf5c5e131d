"""Temporary folders that do not outlive their process for long: what a killed one left, the next removes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import CommandError, PipelineError
from pipeline.run import run

_SUFFIX = ".scratch"
_TRIES = 20


@contextlib.contextmanager
def scratch(parent: Path, prefix: str) -> Iterator[Path]:
    """Give an empty folder below ``parent`` and remove it afterwards.

    Such folders whose process was killed are removed first: nobody holds the lock on them any more.
    Whatever else lies in ``parent`` stays.
    """
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent)
    folder, fd = _create(parent, prefix)
    try:
        yield folder
    finally:
        remove_tree(folder)
        os.close(fd)


def _create(parent: Path, prefix: str) -> tuple[Path, int]:
    """Make a folder and lock it; returns the descriptor that holds the lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{prefix}-", suffix=_SUFFIX, dir=parent))
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # another process's sweep came before the lock
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            # Other users, such as a builder's uid, must be able to look into it.
            os.fchmod(fd, 0o755)
            return folder, fd
        os.close(fd)


def remove_tree(folder: Path) -> None:
    """Remove a folder and all in it, read-only folders included."""
    for _ in range(_TRIES):
        try:
            return _remove(folder)
        except OSError as e:
            if e.errno != errno.ENOTEMPTY:
                raise
            # What worked there was killed, and is still on its way out.
            time.sleep(0.1)
    return _remove(folder)


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except (PermissionError, RecursionError):
        # A build may leave folders without write permission, which stops an unprivileged user, and folders
        # deeper than Python's own can go, which is called once for each level, or than any path.
        run(["find", folder, "-type", "d", "-exec", "chmod", "u+rwx", "{}", "+"], expect=None)
        try:
            run(["rm", "--recursive", "--force", "--", folder])
        except CommandError as e:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), folder) from e


def _sweep(parent: Path) -> None:
    for folder in parent.glob(f"*{_SUFFIX}"):
        with contextlib.suppress(OSError, PipelineError):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(folder)
            finally:
                os.close(fd)
