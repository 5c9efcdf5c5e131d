"""A finished build on disk: its packages, and the record of how they came to be."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from pipeline import ccache, files, records
from pipeline.errors import IntegrityError, UsageError
from pipeline.release import BranchLock
from pipeline.source import Sha256

LOCK = "lock.json"
"""A build's file that says what its release's branch stood for."""


class BuiltPackage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One package file of a build."""

    file: str
    size: int
    sha256: Sha256


class BuildRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a build was made from and what came out; ``build.json`` beside the packages.

    ``without`` names the features that were left out of the release. ``started`` and ``finished`` are in UTC.
    ``ccache`` is what ccache gave, where it was used.
    """

    release: str
    build_id: str
    compile_key: Sha256
    image: str
    image_id: str
    engine: str
    started: datetime
    finished: datetime
    packages: tuple[BuiltPackage, ...]
    without: tuple[str, ...] = ()
    ccache: ccache.Use | None = None

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.finished - self.started).total_seconds()


@dataclass(frozen=True)
class Build:
    """A finished build on disk."""

    folder: Path
    record: BuildRecord

    @property
    def packages(self) -> list[Path]:
        """The package files."""
        return [self.folder / package.file for package in self.record.packages]

    @property
    def hashes(self) -> dict[str, str]:
        """The package files' names and SHA-256."""
        return {package.file: package.sha256 for package in self.record.packages}

    def verify(self) -> None:
        """Compare every package with the hash that was recorded; raises IntegrityError naming the file."""
        for package in self.record.packages:
            path = self.folder / package.file
            if not path.is_file() or files.sha256(path) != package.sha256:
                raise IntegrityError(
                    f"{path} is not the file that was built: its SHA-256 is not {package.sha256}.",
                    hint=f"./inv build {self.record.release} makes it again.",
                )


def read(folder: Path) -> Build:
    """Read a finished build; raises IntegrityError where its record is damaged."""
    path = folder / "build.json"
    try:
        return Build(folder, records.decode(path.read_bytes(), BuildRecord))
    except (OSError, records.RecordError) as e:
        raise IntegrityError(f"{path} is damaged: {e}.", hint=f"Remove {folder} and build again.") from e


def holding(package: Path) -> Build:
    """Return the build in whose folder a package file lies; raises UsageError where that is none."""
    folder = package.resolve().parent
    if not (folder / "build.json").is_file():
        raise UsageError(f"There is no record of a build beside {package}: {folder / 'build.json'}.")
    found = read(folder)
    if package.name not in found.hashes:
        raise UsageError(f"{package.name} is no package of the build in {folder}.")
    found.verify()
    return found


def every(folder: Path) -> list[Build]:
    """The finished builds of a release's folder; one with a damaged record is left out."""
    found = []
    for record in sorted(folder.glob("*/build.json")):
        with contextlib.suppress(IntegrityError):
            if not record.parent.is_symlink():
                found.append(read(record.parent))
    return found


def read_lock(folder: Path) -> BranchLock | None:
    """Read the lock that a build was made with; None where its release follows no branch."""
    path = folder / LOCK
    try:
        return records.decode(path.read_bytes(), BranchLock)
    except FileNotFoundError:
        return None
    except (OSError, records.RecordError) as e:
        raise IntegrityError(f"{path} is damaged: {e}.") from e


def newest(artifacts: Path, release: str) -> Build:
    """Return a release's newest finished build; raises UsageError where there is none."""
    link = artifacts / release / "latest"
    if not link.exists():
        raise UsageError(f"Release {release} has not been built.", hint=f"./inv build {release}")
    return read(link.resolve())
