"""Write initramfs archives whose bytes depend on nothing but their content.

The format is "newc" (magic 070701), as Linux's Documentation/driver-api/early-userspace/buffer-format.rst
describes it. libarchive's writer is not used because it copies inode and device numbers from outside.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import PurePosixPath

_TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class File:
    """A regular file."""

    data: bytes
    mode: int = 0o644


@dataclass(frozen=True)
class Symlink:
    """A symbolic link; the target is stored as given."""

    target: str


@dataclass(frozen=True)
class Directory:
    """A directory."""

    mode: int = 0o755


@dataclass(frozen=True)
class CharDevice:
    """A character device node."""

    major: int
    minor: int
    mode: int = 0o600


Entry = File | Symlink | Directory | CharDevice
Tree = dict[str, Entry]
"""Entries by their path, relative to the root, without a leading slash."""


def with_folders(tree: Tree) -> Tree:
    """Return a tree with the folders that its paths lie in, where it lacks them."""
    whole: Tree = dict(tree)
    for path in tree:
        for parent in PurePosixPath(path).parents:
            if str(parent) != ".":
                whole.setdefault(str(parent), Directory())
    return whole


def write_newc(tree: Tree) -> bytes:
    """Return the archive of a tree.

    Entries are sorted, parents that are missing are made, everything belongs to root, has the time
    stamp 0 and an inode number by its position. Raises ValueError for a path that is absolute, empty
    or has ``..`` in it.
    """
    for path in tree:
        pure = PurePosixPath(path)
        if not path or pure.is_absolute() or ".." in pure.parts or str(pure) != path:
            raise ValueError(f"not a plain relative path: {path!r}")
    whole = with_folders(tree)
    out = bytearray()
    for number, path in enumerate(sorted(whole), start=1):
        _append(out, number, path, whole[path])
    _append(out, 0, _TRAILER, None)
    # Several archives can follow each other in one initramfs; each starts on a multiple of 4.
    return bytes(out)


def _append(out: bytearray, number: int, path: str, entry: Entry | None) -> None:
    data, mode, links, major, minor = b"", 0, 1, 0, 0
    match entry:
        case File():
            data, mode = entry.data, stat.S_IFREG | entry.mode
        case Symlink():
            data, mode = entry.target.encode(), stat.S_IFLNK | 0o777
        case Directory():
            mode, links = stat.S_IFDIR | entry.mode, 2
        case CharDevice():
            mode, major, minor = stat.S_IFCHR | entry.mode, entry.major, entry.minor
        case None:
            pass
    name = path.encode() + b"\0"
    # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    fields = (number, mode, 0, 0, links, 0, len(data), 0, 0, major, minor, len(name), 0)
    out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
    out += bytes(-len(out) % 4)
    out += data
    out += bytes(-len(out) % 4)
