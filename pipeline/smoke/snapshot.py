"""Keep saved machines, each under the hash of all that it was made from, and never use a damaged one.

A snapshot is a folder ``<key>`` with the machine's state, the overlays of its drives, and a record with
the hash of each. It gets its name when all is written; the hashes are compared each time it is used.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pipeline import log
from pipeline.files import sha256, sync_tree, write_bytes
from pipeline.scratch import remove_tree, scratch
from pipeline.smoke.accelerator import Accelerator
from pipeline.smoke.errors import InfrastructureError
from pipeline.smoke.hardware import Hardware
from pipeline.smoke.machine import Machine

_FORMAT = 1
_RECORD = "record.json"
KEPT = 4
"""How many are kept: the newest. One is 60 to 200 MB."""


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: str
    files: dict[str, str]


@dataclass(frozen=True)
class Snapshot:
    """A saved machine, verified; ``folder`` is what Machine goes on from, ``size`` its bytes."""

    key: str
    folder: Path
    size: int


def snapshot_key(hardware: Hardware, accelerator: Accelerator, qemu_version: str) -> str:
    """Hash every input of a saved machine: its files, QEMU and its command line.

    Foreign drives are left out: a machine with one is not to be kept from run to run.
    """
    digest = hashlib.sha256()
    # Descriptors are numbers of the moment.
    arguments = hardware.arguments(accelerator, -1, (-1, -1), -1)
    drives = [(f"drive{number}", drive) for number, drive in enumerate(hardware.drives)]
    images = [(name, drive.image) for name, drive in drives if not drive.foreign]
    hashes = [(name, sha256(path)) for name, path in (*hardware.boot.files(), *images)]
    digest.update(msgspec.json.encode([_FORMAT, qemu_version, arguments, hashes]))
    return digest.hexdigest()


@dataclass(frozen=True)
class Snapshots:
    """The snapshots below a folder."""

    folder: Path

    async def save(self, key: str, machine: Machine) -> None:
        """Save a machine, which is stopped then, in the place of what was there under that key.

        Raises InfrastructureError.
        """
        try:
            await self._save(key, machine)
        except OSError as e:
            raise InfrastructureError(f"The machine could not be saved: {e}.") from e
        self._prune(key)

    async def _save(self, key: str, machine: Machine) -> None:
        with scratch(self.folder, "saving") as work:
            inside = work / key
            inside.mkdir()
            await machine.save(inside)
            hashes = {path.name: sha256(path) for path in sorted(inside.iterdir())}
            write_bytes(inside / _RECORD, msgspec.json.encode(_Record(key, hashes)))
            # After a crash of the host, the record must not be there without what it tells of.
            sync_tree(inside)
            target = self.folder / key
            if target.exists():
                target.rename(work / "old")
            inside.rename(target)

    @contextlib.contextmanager
    def use(self, key: str) -> Iterator[Snapshot | None]:
        """Give the snapshot of that key, if there is a sound one, and keep it in place meanwhile."""
        folder = self.folder / key
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            yield None
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield self._verified(key, folder)
        finally:
            os.close(lock)

    def _verified(self, key: str, folder: Path) -> Snapshot | None:
        try:
            record = msgspec.json.decode((folder / _RECORD).read_bytes(), type=_Record)
            damaged = [name for name, digest in record.files.items() if sha256(folder / name) != digest]
        except (OSError, msgspec.DecodeError) as e:
            log.warn(f"The snapshot {key[:16]} is damaged, and not used: {e}.")
            return None
        if damaged or record.key != key:
            what = f"{', '.join(damaged)} changed" if damaged else "it is another machine's"
            log.warn(f"The snapshot {key[:16]} is damaged, and not used: {what}.")
            return None
        now = time.time()
        os.utime(folder, (now, now))
        return Snapshot(key, folder, sum((folder / name).stat().st_size for name in record.files))

    def _prune(self, key: str) -> None:
        """Remove all but the newest; one that is in use stays."""
        others = [path for path in self.folder.iterdir() if len(path.name) == len(key) and path.name != key]
        others.sort(key=lambda path: path.stat().st_mtime)
        for folder in others[: max(0, len(others) - KEPT + 1)]:
            with contextlib.suppress(OSError):
                lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove_tree(folder)
                finally:
                    os.close(lock)
