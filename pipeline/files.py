"""Writing files so that a killed or cut-off machine leaves either the old content or the new."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.run import run

PATH_MAX = 4096
"""Bytes of a path, with the zero at its end, that Linux takes no longer (limits.h)."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write that becomes ``path`` when it is complete: temporary name, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(fd, "wb") as file:
            yield file
            file.flush()
            os.fchmod(fd, 0o644)
            os.fsync(fd)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``."""
    with replacing(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` in UTF-8."""
    write_bytes(path, text.encode())


def below(folder: Path) -> Iterator[Path]:
    """All that is below a folder, however deep, each folder before what is in it; links are not followed.

    Raises OSError. The path of what it yields may be longer than any call takes.
    """
    # Python's own, of 3.11, go one call deeper with each level, and may not go as deep as a path can.
    waiting = [folder]
    while waiting:
        for entry in sorted(waiting.pop().iterdir()):
            yield entry
            if entry.is_dir() and not entry.is_symlink():
                waiting.append(entry)


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(folder: Path) -> None:
    """Make everything on the file system that holds ``folder`` durable (syncfs(2) by way of sync(1))."""
    # One syncfs for tens of thousands of files; an fsync each would take minutes.
    run(["sync", "--file-system", folder])


def link_or_copy(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``, or its copy on another file system."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def sha256(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_link(link: Path, target: str) -> None:
    """Point a symbolic link at ``target`` in one step."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
