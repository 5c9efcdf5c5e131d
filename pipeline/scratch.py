"""Temporary folders that do not outlive their process for long: what a killed one left, the next removes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def scratch(parent: Path, prefix: str) -> Iterator[Path]:
    """Give an empty folder below ``parent`` and remove it afterwards.

    Folders whose process was killed are removed first: nobody holds the lock on them any more.
    """
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=parent))
    # Other users, such as a builder's uid, must be able to look into it.
    folder.chmod(0o755)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        remove_tree(folder)
        os.close(fd)


def remove_tree(folder: Path) -> None:
    """Remove a folder and all in it, read-only folders included."""
    try:
        shutil.rmtree(folder)
    except PermissionError:
        # A build may leave folders without write permission, which stops an unprivileged user.
        for path, _, _ in os.walk(folder):
            with contextlib.suppress(OSError):
                Path(path).chmod(stat.S_IRWXU)
        shutil.rmtree(folder)


def _sweep(parent: Path) -> None:
    for folder in parent.iterdir():
        with contextlib.suppress(OSError):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(folder)
            finally:
                os.close(fd)
