"""A commit's files as a tar: the same bytes on every machine and with every git.

Not ``git archive``: its output has changed between versions, and attributes in the tree change it.
Format: GNU tar. Entries are sorted by the bytes of their paths, folders included; owner 0, the
committer's time, modes 0644 and 0755, everything below one folder.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.git.objects import Objects, Wanted, parse_commit, parse_tree
from pipeline.source import GitSource, Submodules
from pipeline.store import BLOCK, Store

_SUBMODULE = 0o160000
_MOST_ENTRIES = 1_000_000
_RECORD = 20 * tarfile.BLOCKSIZE


class ExportError(UsageError):
    """The commit is sound, but cannot be a source."""


@dataclass(frozen=True)
class Entry:
    """A path of a commit: its bytes from the top, git's mode, and the object's id (that of folders too)."""

    path: bytes
    mode: int
    id: str

    @property
    def is_tree(self) -> bool:
        """Whether there may be more below it."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_blob(self) -> bool:
        """Whether it has content: a file or a symbolic link."""
        return stat.S_ISREG(self.mode) or stat.S_ISLNK(self.mode)


def export(objects: Objects, source: GitSource, store: Store) -> Path:
    """Write a commit's files as a tar into the store and return the entry.

    Every object on the way from the commit's id to the files' bytes is hashed. Raises
    DamagedMirrorError, ExportError and StoreError.
    """
    data = objects.one(source.commit, "commit", source.name)
    try:
        commit = parse_commit(data)
    except ValueError as e:
        raise ExportError(f"{source.name}: {source.commit} is {e}.") from e
    entries = _walk(objects, source, commit.tree)
    with store.writer() as writer:
        buffer = bytearray()
        for block in _tar(objects, source.name, entries, max(0, commit.time)):
            buffer += block
            if len(buffer) >= BLOCK:
                writer.write(bytes(buffer))
                buffer.clear()
        end = -(writer.size + len(buffer) + 2 * tarfile.BLOCKSIZE) % _RECORD + 2 * tarfile.BLOCKSIZE
        writer.write(bytes(buffer) + bytes(end))
        return writer.commit()


def _walk(objects: Objects, source: GitSource, tree: str) -> list[Entry]:
    """List everything below a tree, in order; trees of the same depth are read at once."""
    found: list[Entry] = []
    level = [Entry(b"", stat.S_IFDIR, tree)]
    while level:
        below: list[Entry] = []
        wanted = [Wanted(e.id, "tree", f"{source.name}/{os.fsdecode(e.path)}") for e in level]
        with objects.read(wanted) as contents:
            for parent, data in zip(level, contents, strict=True):
                below += _children(source, parent, data)
        found += below
        level = [entry for entry in below if entry.is_tree]
        if len(found) > _MOST_ENTRIES:
            raise ExportError(f"{source.name} has more than {_MOST_ENTRIES} files.")
    return sorted(found, key=lambda entry: entry.path)


def _children(source: GitSource, parent: Entry, data: bytes) -> Iterator[Entry]:
    where = f"{source.name}/{os.fsdecode(parent.path)}".rstrip("/")
    try:
        children = parse_tree(data)
    except ValueError as e:
        raise ExportError(f"{where} of commit {source.commit} cannot be exported: {e}.") from e
    for child in children:
        path = parent.path + b"/" + child.name if parent.path else child.name
        if child.mode == _SUBMODULE and source.submodules is Submodules.EMPTY:
            yield Entry(path, child.mode, child.id)
            continue
        if child.mode == _SUBMODULE:
            raise ExportError(
                f"{source.name}/{os.fsdecode(path)} of commit {source.commit} is a submodule, whose files "
                f"git keeps in another repository.",
                hint='Name that repository as a source of its own, and set `submodules` to "empty" here.',
            )
        if stat.S_IFMT(child.mode) not in (stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK):
            raise ExportError(f"{source.name}/{os.fsdecode(path)} has the unknown mode {child.mode:o}.")
        yield Entry(path, child.mode, child.id)


def _tar(objects: Objects, name: str, entries: list[Entry], time: int) -> Iterator[bytes]:
    yield _header(name.encode(), stat.S_IFDIR, time)
    wanted = [Wanted(e.id, "blob", f"{name}/{os.fsdecode(e.path)}") for e in entries if e.is_blob]
    with objects.read(wanted) as contents:
        for entry in entries:
            path = name.encode() + b"/" + entry.path
            if not entry.is_blob:
                yield _header(path, stat.S_IFDIR, time)
                continue
            data = next(contents)
            if stat.S_ISLNK(entry.mode):
                if not data or b"\0" in data:
                    raise ExportError(f"{os.fsdecode(path)} is a symbolic link to nothing that can be.")
                yield _header(path, entry.mode, time, link=data)
            else:
                yield _header(path, entry.mode, time, size=len(data))
                yield data
                yield bytes(-len(data) % tarfile.BLOCKSIZE)


def _header(path: bytes, mode: int, time: int, *, size: int = 0, link: bytes = b"") -> bytes:
    # Surrogates stand for the bytes that are not UTF-8, and become the same bytes again.
    info = tarfile.TarInfo(path.decode("utf-8", "surrogateescape"))
    info.mtime = time
    info.size = size
    info.mode = 0o644
    if stat.S_ISDIR(mode):
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    elif stat.S_ISLNK(mode):
        info.type, info.mode = tarfile.SYMTYPE, 0o777
        info.linkname = link.decode("utf-8", "surrogateescape")
    elif mode & 0o100:
        info.mode = 0o755
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
