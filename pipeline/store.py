"""The content-addressed store: files by the SHA-256 of their bytes, verified each time they are used.

Layout below the root: ``sha256/ab/<64 hex digits>`` holds entries (read-only regular files),
``tmp/`` files in the making, ``locks/`` one lock file a digest. An entry comes into being only by the
rename of a complete, synced file, so a process killed at any point leaves nothing that looks like one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from pipeline import log
from pipeline.errors import HostError, IntegrityError, UsageError
from pipeline.files import sync_folder
from pipeline.scratch import remove_tree
from pipeline.source import Source

BLOCK = 1 << 20
"""How many bytes are read and hashed at once."""

_HEX = re.compile(r"[0-9a-f]{64}")
_HINTS = {
    errno.ENOSPC: "Free some space, or set `store` to a folder on another disk.",
    errno.EDQUOT: "Free some space, or set `store` to a folder on another disk.",
    errno.EROFS: "Set `store` to a folder that this user can write to.",
    errno.EACCES: "Set `store` to a folder that this user can write to.",
}


def _clear(path: Path) -> None:
    """Remove what lies in the place of a regular file and is none."""
    with contextlib.suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            remove_tree(path)
        elif not stat.S_ISREG(mode):
            path.unlink()


class StoreError(HostError):
    """The store cannot be read or written: a full disk, a read-only folder, a broken device."""


class CancelledError(HostError):
    """The caller gave up while it waited for another process's lock."""


@contextlib.contextmanager
def _explained(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        where = f" ({os.fsdecode(e.filename)})" if e.filename else ""
        raise StoreError(
            f"The store in {root} cannot be used: {e.strerror or e}{where}.", hint=_HINTS.get(e.errno or 0)
        ) from e


class Writer:
    """A file in the making: what is written is hashed on its way, and `commit` makes it an entry.

    ``size`` is the number of bytes written so far. ``entry`` is the finished entry: None until
    `commit`, except where another process had finished the same file before this one got its turn.
    """

    def __init__(self, store: Store, path: Path, fd: int, *, locked: bool) -> None:
        self._store = store
        self._path = path
        self._file = open(fd, "r+b", buffering=0)  # noqa: SIM115  # closed by the store's context managers
        self._locked = locked
        self._hash = hashlib.file_digest(self._file, "sha256")
        self.size = self._file.tell()
        self.entry: Path | None = None

    @property
    def sha256(self) -> str:
        """The SHA-256 of what was written so far."""
        return self._hash.hexdigest()

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes. Raises StoreError: a full disk, for one."""
        rest = memoryview(data)
        with _explained(self._store.root):
            while rest:
                # One write at a time is hashed, so that size and hash agree with the file after a failure.
                count = self._file.write(rest)
                self._hash.update(rest[:count])
                self.size += count
                rest = rest[count:]

    def restart(self) -> None:
        """Forget what was written so far."""
        with _explained(self._store.root):
            self._file.seek(0)
            self._file.truncate()
        self._hash = hashlib.sha256()
        self.size = 0

    def commit(self, expect: str | None = None) -> Path:
        """Make an entry of what was written, durably, and return its path.

        Raises IntegrityError where its SHA-256 is not ``expect``, and StoreError.
        """
        sha256 = self.sha256
        if expect not in (None, sha256):
            raise IntegrityError(f"A file has the SHA-256 {sha256} instead of {expect}.")
        self.entry = self._store.enter(self._path, self._file.fileno(), sha256, locked=self._locked)
        return self.entry

    def close(self, *, keep: bool) -> None:
        """Close the file; unless it became an entry or is to be kept for later, remove it."""
        self._file.close()
        if self.entry is None and not keep:
            self._path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Store:
    """The store in a folder, which is made when the first file is written."""

    root: Path

    def path(self, sha256: str) -> Path:
        """Return where the entry of that SHA-256 lies or would lie; whether it does is not looked at."""
        if not _HEX.fullmatch(sha256):
            raise ValueError(f"not a SHA-256: {sha256!r}")
        return self.root / "sha256" / sha256[:2] / sha256

    def get(self, source: Source) -> Path | None:
        """Return the verified entry of a source, or None where the store has none.

        Raises IntegrityError (the damaged entry is removed then), StoreError, and UsageError where the
        bytes are those that were pinned, but the pinned size is not theirs.
        """
        entry = self.find(source.sha256, source.name)
        if entry is not None and (size := entry.stat().st_size) != source.size:
            raise UsageError(f"{source.name} is pinned with {source.size} bytes, but its SHA-256 has {size}.")
        return entry

    def find(self, sha256: str, name: str | None = None) -> Path | None:
        """Return the entry of that SHA-256 after hashing it anew, or None where there is none.

        ``name`` is what messages call it. A damaged entry is removed, so that the next run makes or
        downloads it again; raises IntegrityError then, and StoreError.
        """
        entry = self.path(sha256)
        problem, seen = self._examine(entry, sha256)
        if seen is None:
            return None
        if problem is None:
            return entry
        try:
            removed = self._remove(sha256, seen)
        except StoreError as e:
            raise IntegrityError(
                f"{name or 'A file'} is damaged in the store: {entry} {problem}.",
                hint=f"It could not be removed. {e.message}",
            ) from e
        if not removed:
            return self.find(sha256, name)  # another process has put a new one into its place
        raise IntegrityError(
            f"{name or 'A file'} was damaged in the store and is removed: {entry} {problem}.",
            hint="The next run downloads or makes it again.",
        )

    def add_file(self, path: Path, expect: str | None = None) -> Path:
        """Copy a file into the store and return its entry.

        Raises IntegrityError where its SHA-256 is not ``expect``, and StoreError.
        """
        with _explained(self.root):
            file = path.open("rb", buffering=0)
        with file, self.writer() as writer:
            while block := self._read(file.read):
                writer.write(block)
            return writer.commit(expect)

    def take_file(self, path: Path, expect: str | None = None) -> Path:
        """Move a file that lies on the store's file system, below the root for one, into the store.

        Raises IntegrityError where its SHA-256 is not ``expect``, and StoreError; the file stays then.
        """
        with _explained(self.root), path.open("rb", buffering=0) as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if expect not in (None, sha256):
                raise IntegrityError(f"A file has the SHA-256 {sha256} instead of {expect}.")
            return self.enter(path, file.fileno(), sha256, locked=False)

    def enter(self, path: Path, fd: int, sha256: str, *, locked: bool) -> Path:
        """Make a complete file, open as ``fd``, the entry of its SHA-256, durably; returns the entry.

        ``locked`` says that the caller holds that entry's lock.
        """
        entry = self.path(sha256)
        with _explained(self.root):
            os.fchmod(fd, 0o444)
            os.fsync(fd)
            entry.parent.mkdir(parents=True, exist_ok=True)
        # Under the lock, lest the entry replaces a damaged one that somebody is just about to remove.
        lock = contextlib.nullcontext() if locked else self.lock(sha256)
        with lock, _explained(self.root):
            path.replace(entry)
            sync_folder(entry.parent)
        return entry

    @contextlib.contextmanager
    def writer(self) -> Iterator[Writer]:
        """Give a new file to write into and `Writer.commit`; without a commit, nothing of it stays."""
        with _explained(self.root):
            path, fd = self._create()
        writer = Writer(self, path, fd, locked=False)
        try:
            yield writer
        finally:
            writer.close(keep=False)

    @contextlib.contextmanager
    def resume(
        self, sha256: str, name: str | None = None, cancelled: Callable[[], bool] | None = None
    ) -> Iterator[Writer]:
        """Give the partial file of that SHA-256, new or left by an earlier run, to append to.

        One process at a time has it; the others wait, and then find ``Writer.entry`` set. What was
        written stays for the next run unless it is committed. ``cancelled`` is asked while waiting.

        Raises StoreError, and CancelledError where ``cancelled`` said so.
        """
        with self.lock(sha256, name, cancelled):
            path = self._folder("tmp") / f"{sha256}.part"
            with _explained(self.root):
                _clear(path)
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
                writer = Writer(self, path, fd, locked=True)
            try:
                problem, seen = self._examine(self.path(sha256), sha256)
                if seen is not None and problem is None:
                    path.unlink(missing_ok=True)
                    writer.entry = self.path(sha256)
                yield writer
            finally:
                writer.close(keep=writer.size > 0)

    @contextlib.contextmanager
    def lock(
        self, sha256: str, name: str | None = None, cancelled: Callable[[], bool] | None = None
    ) -> Iterator[None]:
        """Keep other processes and threads from making that entry. The kernel ends it with the process.

        Raises StoreError, and CancelledError where ``cancelled`` said so while waiting.
        """
        lock = filelock.FileLock(self._folder("locks") / f"{sha256}.lock")
        with _explained(self.root):
            try:
                lock.acquire(blocking=False)
            except filelock.Timeout:
                log.info(f"waiting for another process that works on {name or sha256}")
                try:
                    lock.acquire(poll_interval=0.1, cancel_check=cancelled)
                except filelock.Timeout as e:
                    raise CancelledError(f"Gave up waiting for {name or sha256}.") from e
        try:
            yield
        finally:
            lock.release()

    def _read(self, read: Callable[[int], bytes]) -> bytes:
        with _explained(self.root):
            return read(BLOCK)

    def _folder(self, name: str) -> Path:
        folder = self.root / name
        with _explained(self.root):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _examine(self, entry: Path, sha256: str) -> tuple[str | None, os.stat_result | None]:
        """Say what is wrong with an entry (None: nothing), and which file was looked at (None: none)."""
        with _explained(self.root):
            try:
                seen = entry.lstat()
                if not stat.S_ISREG(seen.st_mode):
                    return "is not a regular file", seen
                fd = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except FileNotFoundError:
                return None, None
            with open(fd, "rb", buffering=0) as file:
                seen = os.fstat(fd)
                try:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
                except OSError as e:
                    if e.errno != errno.EIO:
                        raise
                    return f"cannot be read ({e.strerror})", seen
        return (None if found == sha256 else f"has the SHA-256 {found}"), seen

    def _remove(self, sha256: str, seen: os.stat_result) -> bool:
        """Remove a damaged entry, unless it is no longer the file that was found to be damaged."""
        entry = self.path(sha256)
        with self.lock(sha256), _explained(self.root):
            try:
                now = entry.lstat()
            except FileNotFoundError:
                return True
            if (now.st_dev, now.st_ino, now.st_mtime_ns) != (seen.st_dev, seen.st_ino, seen.st_mtime_ns):
                return False
            _clear(entry)
            entry.unlink(missing_ok=True)
            return True

    def _create(self) -> tuple[Path, int]:
        folder = self._folder("tmp")
        self._sweep(folder)
        while True:
            path = folder / f"{secrets.token_hex(8)}.new"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                return path, fd
            os.close(fd)  # another process's sweep came between open and flock

    @staticmethod
    def _sweep(folder: Path) -> None:
        """Remove the files that killed processes left behind: those that nobody holds a lock on."""
        for path in folder.glob("*.new"):
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                finally:
                    os.close(fd)
