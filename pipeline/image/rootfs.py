"""A root file system between its assembly and its use: a tree, and the tar that a lock pins by its hash.

GNU tar makes always the same bytes of the same tree, so that the tar of a tree that is at hand need not be
kept: it is made where somebody wants it. Only root's trees can do that, as only they have all the owners.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline import files
from pipeline.errors import CommandError, IntegrityError
from pipeline.image import tree
from pipeline.run import run
from pipeline.store import Store

_BLOCK = 1 << 20
# In large records, which take a third of the time.
_PACK = (
    *("tar", "--create", "--sort=name", "--numeric-owner", "--record-size=1M", "--format=posix"),
    "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
)


@dataclass(frozen=True)
class Rootfs:
    """What an assembly ended with: a tar, or the tree of which `pack` makes it.

    ``seconds`` since 1970 are the time of every file of a tree.
    """

    path: Path
    seconds: int = 0

    @property
    def is_tree(self) -> bool:
        """Whether it is a tree."""
        return self.path.is_dir()

    def sha256(self) -> str:
        """Hash the tar."""
        return _packed_sha256(self.path, self.seconds) if self.is_tree else files.sha256(self.path)

    def tar(self, target: Path) -> Path:
        """Return the tar, written to ``target`` where it is not there yet."""
        if not self.is_tree:
            return self.path
        with target.open("wb") as file:
            pack(self.path, self.seconds, file.write)
        return target

    def settle(self, store: Store, folder: Path, expect: str | None = None) -> str:
        """Move or unpack the tree to ``folder``/root, and keep a tar that cannot be made anew in the store.

        Returns the tar's SHA-256. Raises IntegrityError where it is not ``expect``, and StoreError.
        """
        if not self.is_tree:
            entry = store.take_file(self.path, expect)
            unpack(entry, folder)
            return entry.name
        root = _make_folder(folder) / "root"
        self.path.rename(root)
        tree.level(root, self.seconds)  # as the tar has it
        # While one thread hashes what tar makes of it, the disk gets it.
        with ThreadPoolExecutor(1) as pool:
            written = pool.submit(files.sync_tree, root)
            sha256 = _packed_sha256(root, self.seconds)
            written.result()
        if expect not in (None, sha256):
            raise IntegrityError(f"Its tar has the SHA-256 {sha256} instead of {expect}.")
        return sha256


def pack(
    root: Path, seconds: int, write: Callable[[memoryview], object], *, within: Sequence[str] = ()
) -> None:
    """Give ``write`` the tar of a tree, a block at a time, in which all files have one time.

    A block is overwritten by the next. ``within`` is a command by which tar may read all of the tree. Raises
    CommandError, and what ``write`` raises.
    """
    reading, writing = os.pipe()
    options = [f"--mtime=@{seconds}", "--file", f"/proc/self/fd/{writing}", "--directory", os.fspath(root)]
    failure = None
    with ThreadPoolExecutor(1) as pool:
        drained = pool.submit(_drain, reading, write)
        try:
            run([*within, *_PACK, *options, "."], pass_fds=(writing,))
        except CommandError as e:
            failure = e
        finally:
            os.close(writing)
        drained.result()  # where nobody takes the bytes, that is why tar failed
    if failure is not None:
        raise failure


def unpack(tar: Path, folder: Path) -> None:
    """Unpack a root file system's tar into ``folder``/root."""
    root = _make_folder(folder) / "root"
    # mmdebstrap leaves /dev out with what is in it; bubblewrap mounts its own there.
    (root / "dev").mkdir(parents=True)
    for path in (root, root / "dev"):
        path.chmod(0o755)  # whatever this process's umask is
    owner = "--same-owner" if os.geteuid() == 0 else "--no-same-owner"
    run(["tar", "--extract", "--preserve-permissions", "--numeric-owner", owner, "--file", tar], cwd=root)


def _make_folder(folder: Path) -> Path:
    folder.mkdir()
    folder.chmod(0o755)
    return folder


def _packed_sha256(root: Path, seconds: int) -> str:
    digest = hashlib.sha256()
    pack(root, seconds, digest.update)
    return digest.hexdigest()


def _drain(reading: int, write: Callable[[memoryview], object]) -> None:
    try:
        fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, _BLOCK)
        # One buffer for all: a new one a block would cost as much as the hashing does.
        buffer = memoryview(bytearray(_BLOCK))
        while count := os.readv(reading, [buffer]):
            write(buffer[:count])
    finally:
        os.close(reading)
