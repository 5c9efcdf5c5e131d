"""A channel's folder: what lies where, and the record of what was published.

::

    xen-stable.db        -> current/xen-stable.db (and .db.sig, .files, .files.sig, packages.json)
    current              -> generations/7
    generations/7/       the databases, their signatures, packages.json
    xen-4.17.4-1-x86_64.pkg.tar.xz, .sig

One rename of ``current`` changes everything that a client reads first. Databases and packages that went out
of use stay for a time, for clients that are on their way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import filelock
import msgspec

from pipeline import files, records
from pipeline.errors import IntegrityError, UsageError
from pipeline.source import FileName, Sha256

INDEX = "packages.json"
_MAX_INDEX = 16 << 20
ARCHITECTURE = "x86_64"


class Channel(StrEnum):
    """Who a repository is for."""

    STABLE = "stable"
    UNSTABLE = "unstable"

    @classmethod
    def parse(cls, name: str) -> Channel:
        """Find a channel; raises UsageError."""
        try:
            return cls(name)
        except ValueError as e:
            raise UsageError(f"There is no channel {name!r}.", hint=f"Channels: {', '.join(cls)}.") from e

    @property
    def repository(self) -> str:
        """The name of its section in pacman.conf, and of its database."""
        return f"xen-{self}"


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A package that is in the repository's folder.

    ``unproven`` says that it was published without passing evidence; ``evidence`` has a line for each step
    that passed. ``left`` is when it left the database, None while it is in it.
    """

    file: FileName
    name: str
    version: str
    size: Annotated[int, msgspec.Meta(ge=0)]
    sha256: Sha256
    unproven: bool
    evidence: dict[str, str]
    left: datetime | None = None


class Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a generation holds; ``packages.json``."""

    format: Literal[1] = 1
    repository: str
    generation: Annotated[int, msgspec.Meta(ge=0)]
    published: datetime
    key: str
    packages: tuple[Published, ...]

    @property
    def offered(self) -> dict[str, Published]:
        """The packages of the database, by name."""
        return {package.name: package for package in self.packages if package.left is None}


@dataclass(frozen=True)
class Place:
    """A channel's folder on this host."""

    root: Path
    channel: Channel

    @property
    def folder(self) -> Path:
        """What a client's Server line names."""
        return self.root / self.channel / ARCHITECTURE

    @property
    def database_files(self) -> tuple[str, ...]:
        """The names of all that a generation may hold."""
        name = self.channel.repository
        return (f"{name}.db", f"{name}.db.sig", f"{name}.files", f"{name}.files.sig", INDEX)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other publishers out; they wait."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(self.folder.parent / ".lock"):
            yield

    def read(self) -> Index | None:
        """Read what is published now; None where nothing is. Raises IntegrityError."""
        return read_index(self.folder / "current" / INDEX)

    def switch(self, generation: int) -> None:
        """Make a generation the current one."""
        for name in self.database_files:
            if not (self.folder / name).is_symlink():
                files.replace_link(self.folder / name, f"current/{name}")
        files.replace_link(self.folder / "current", f"generations/{generation}")
        files.sync_folder(self.folder)


def read_index(path: Path) -> Index | None:
    """Read a ``packages.json``; None where there is none. Raises IntegrityError."""
    try:
        with path.open("rb") as file:
            return records.decode(file.read(_MAX_INDEX), Index)
    except FileNotFoundError:
        return None
    except records.RecordError as e:
        raise IntegrityError(f"{path} is damaged: {e}.") from e
