"""Objects out of a bare repository, each proven by its SHA-1.

Formats: gitformat-pack(5) is git's business; what is read here are the objects' plain contents, as
``git cat-file --batch`` gives them: "ID TYPE SIZE", a line feed, the content, a line feed. Git itself
does not hash what it reads from its own disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pipeline.errors import CommandError, IntegrityError
from pipeline.git.command import Git, environment, unreadable
from pipeline.run import run

_COMMITTER = re.compile(rb"^committer .*> (-?[0-9]{1,12}) [-+][0-9]{4}$", re.MULTILINE)
_MODE = re.compile(rb"0?[0-7]{5,6}")


class DamagedMirrorError(IntegrityError):
    """A repository in the store lacks an object or holds another one in its place."""


@dataclass(frozen=True)
class Wanted:
    """An object to be read: its id and type, and what messages call it."""

    id: str
    type: str
    label: str


@dataclass(frozen=True)
class TreeEntry:
    """A line of a tree object: the mode as git writes it (octal), the name, and the object's id."""

    mode: int
    name: bytes
    id: str


@dataclass(frozen=True)
class CommitObject:
    """What an export needs of a commit: its tree's id, and the committer's time in seconds since 1970."""

    tree: str
    time: int


@dataclass(frozen=True)
class Objects:
    """Reads objects of one repository."""

    git: Git
    folder: Path

    @contextlib.contextmanager
    def read(self, wanted: Sequence[Wanted]) -> Iterator[Iterator[bytes]]:
        """Give the contents of objects in order, each verified.

        Raises DamagedMirrorError, while they are read, naming the one that is missing or damaged.
        """
        reader, writer = os.pipe()
        error: list[CommandError] = []

        def pour() -> None:
            # `run` gives text; what comes here is bytes, so they go past it.
            script = 'fd=$1; shift; exec "$@" > "/dev/fd/$fd"'
            command = ["git", f"--git-dir={self.folder}", "cat-file", "--batch"]
            ids = "".join(f"{entry.id}\n" for entry in wanted).encode()
            try:
                run(
                    ["/bin/sh", "-c", script, "sh", str(writer), *command],
                    env=environment(self.git.home),
                    input=ids,
                    pass_fds=(writer,),
                )
            except CommandError as e:
                error.append(e)
            finally:
                os.close(writer)

        thread = threading.Thread(target=pour, daemon=True)
        thread.start()
        try:
            with open(reader, "rb", buffering=1 << 20) as stream:
                yield (self._one(stream, entry, thread, error) for entry in wanted)
        finally:
            thread.join()

    def _one(
        self, stream: IO[bytes], wanted: Wanted, thread: threading.Thread, error: list[CommandError]
    ) -> bytes:
        header = stream.readline(200).split()
        if not header:
            thread.join()
            why = unreadable(error[0]) if error else "git ended too early"
            raise self._damaged(wanted, f"cannot be read ({why})")
        if len(header) != 3:
            raise self._damaged(wanted, "is missing")
        size = int(header[2])
        data = stream.read(size)
        if len(data) != size or stream.read(1) != b"\n":
            raise self._damaged(wanted, "is cut short")
        if header[1].decode() != wanted.type:
            raise self._damaged(wanted, f"is a {header[1].decode()}")
        found = object_id(wanted.type, data)
        if found != wanted.id:
            raise self._damaged(wanted, f"has the SHA-1 {found}")
        return data

    def _damaged(self, wanted: Wanted, problem: str) -> DamagedMirrorError:
        what = f"its {wanted.type} {wanted.id} ({wanted.label})"
        return DamagedMirrorError(f"The repository {self.folder} is damaged: {what} {problem}.")

    def one(self, id: str, type: str, label: str) -> bytes:
        """Return one object's content, verified; raises DamagedMirrorError."""
        with self.read([Wanted(id, type, label)]) as contents:
            return next(contents)


def object_id(type: str, data: bytes) -> str:
    """Return the id that git gives an object."""
    return hashlib.sha1(b"%s %d\0" % (type.encode(), len(data)) + data, usedforsecurity=False).hexdigest()


def parse_commit(data: bytes) -> CommitObject:
    """Read a commit object; raises ValueError where it is not one."""
    head = data.partition(b"\n\n")[0]
    committer = _COMMITTER.search(head)
    if not re.match(rb"tree [0-9a-f]{40}\n", head) or committer is None:
        raise ValueError("not a commit")
    return CommitObject(head[5:45].decode(), int(committer[1]))


def parse_tree(data: bytes) -> list[TreeEntry]:
    """Read a tree object: "MODE NAME", a zero byte, 20 bytes of id, and so on.

    Raises ValueError for damage, and for names that no folder can hold or that would lead elsewhere.
    """
    entries: list[TreeEntry] = []
    seen: set[bytes] = set()
    position = 0
    while position < len(data):
        end = data.find(b"\0", position)
        mode, space, name = data[position:end].partition(b" ")
        if end < 0 or not space or not _MODE.fullmatch(mode) or end + 21 > len(data):
            raise ValueError("not a tree")
        if name in (b"", b".", b"..") or b"/" in name or name.lower() == b".git" or name in seen:
            raise ValueError(f"it holds the name {os.fsdecode(name)!r}")
        seen.add(name)
        entries.append(TreeEntry(int(mode, 8), name, data[end + 1 : end + 21].hex()))
        position = end + 21
    return entries
