"""Read Debian packages; the format is that of deb(5)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import libarchive

from pipeline.smoke.cpio import File, Symlink, Tree
from pipeline.smoke.errors import DebError

MAX_PACKAGE = 1 << 30
"""Bytes that a package may have unpacked."""


def files(package: Path) -> Tree:
    """Return a package's files and links. Raises DebError."""
    tree: Tree = {}
    with tar(member(package, "data.tar")) as archive:
        for entry in archive:
            path = entry.pathname.removeprefix("./")
            if entry.isfile:
                tree[path] = File(content(entry, MAX_PACKAGE), entry.mode & 0o755)
            elif entry.issym:
                tree[path] = Symlink(entry.linkname)
    return tree


def member(package: Path, prefix: str) -> bytes:
    """Return a member of the ar archive that every .deb is, by the beginning of its name. Raises DebError."""
    try:
        with libarchive.file_reader(str(package), format_name="ar") as archive:
            for entry in archive:
                if entry.pathname.startswith(prefix):
                    return content(entry, MAX_PACKAGE)
    except libarchive.ArchiveError as e:
        raise DebError(f"{package.name} cannot be read as a Debian package: {e}.") from e
    raise DebError(f"{package.name} holds no {prefix}: it is not a Debian package.")


def content(entry: Any, limit: int) -> bytes:
    """Return the data of an archive's entry. Raises DebError for more than ``limit`` bytes."""
    out = bytearray()
    for block in entry.get_blocks():
        out += block
        if len(out) > limit:
            raise DebError(f"{entry.pathname} is larger than {limit} bytes.")
    return bytes(out)


@contextmanager
def tar(data: bytes) -> Iterator[Any]:
    """Open a .deb's data.tar, to be read entry by entry. Raises DebError."""
    try:
        with libarchive.memory_reader(data, format_name="tar", filter_name="all") as archive:
            yield archive
    except libarchive.ArchiveError as e:
        raise DebError(f"The Debian package is damaged: {e}.") from e
