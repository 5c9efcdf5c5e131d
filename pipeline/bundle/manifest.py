"""What a bundle says of itself: its first member, ``manifest.json``, which the signature covers."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from pipeline import records
from pipeline.errors import FailureError
from pipeline.source import Commit, FileName, FolderName, Sha256

MAX_SIZE = 4 << 20
"""The largest manifest, in bytes, that is read."""

MAX_MEMBER = (8 << 30) - 1
"""The largest member, in bytes: what a ustar header can say."""

# Short enough for a ustar header's name field, which the archive uses alone (POSIX pax(1), "ustar").
_PATH = re.compile(r"[A-Za-z0-9@._+:~-]{1,80}(/[A-Za-z0-9@._+:~-]{1,80}){0,3}")
_ROOMS = ("build", "sources", "images")


class BundleError(FailureError):
    """A file is not a bundle that may be unpacked: damaged, incomplete, forged or not one at all."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file of a bundle; ``path`` begins with ``build/``, ``sources/`` or ``images/``."""

    path: Annotated[str, msgspec.Meta(max_length=99)]
    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_MEMBER)]
    sha256: Sha256

    def __post_init__(self) -> None:
        parts = self.path.split("/")
        if not _PATH.fullmatch(self.path) or {".", ".."} & set(parts):
            raise ValueError(f"a bundle may not hold a file called {self.path!r}")
        if len(parts) < 2 or parts[0] not in _ROOMS:
            raise ValueError(f"{self.path!r} is in none of the folders {', '.join(_ROOMS)}")


class GitExport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """That ``sources/NAME.tar`` is the export of a commit."""

    name: FolderName
    commit: Commit


class Requirements(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a machine needs to install the packages; ``glibc`` is None where nothing is linked to it.

    ``pacman`` is the version that first read this kind of archive.
    """

    glibc: Annotated[str, msgspec.Meta(pattern=r"^[0-9]+(\.[0-9]+)+$")] | None
    pacman: Annotated[str, msgspec.Meta(pattern=r"^[0-9]+(\.[0-9]+)+$")]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A bundle's table of contents, in the order of the members.

    ``architecture`` is what uname -m says on the machines that it is for. ``unproven`` marks a bundle that
    was made without passing evidence. ``packages`` names the package files below ``build/``.
    """

    format: Literal[1]
    release: FileName
    build_id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]
    architecture: Annotated[str, msgspec.Meta(pattern="^[a-z0-9_]{1,20}$")]
    unproven: bool
    requires: Requirements
    packages: Annotated[tuple[FileName, ...], msgspec.Meta(min_length=1, max_length=100)]
    entries: Annotated[tuple[Entry, ...], msgspec.Meta(max_length=10_000)]
    git: tuple[GitExport, ...] = ()

    def __post_init__(self) -> None:
        paths = [entry.path for entry in self.entries]
        if len(set(paths)) != len(paths):
            raise ValueError("a file stands in the manifest twice")
        folders = {"/".join(parts[:n]) for parts in map(_split, paths) for n in range(1, len(parts))}
        if clash := folders & set(paths):
            raise ValueError(f"{min(clash)} is a file and a folder")
        wanted = [f"build/{name}" for name in ("build.json", *self.packages)]
        wanted += [f"sources/{export.name}.tar" for export in self.git]
        if missing := [path for path in wanted if path not in paths]:
            raise ValueError(f"{missing[0]} is missing")

    @property
    def size(self) -> int:
        """The bytes of all files together."""
        return sum(entry.size for entry in self.entries)

    def within(self, room: str) -> list[Entry]:
        """The files below one of the bundle's folders."""
        return [entry for entry in self.entries if entry.path.startswith(f"{room}/")]


def _split(path: str) -> list[str]:
    return path.split("/")


def decode(data: bytes) -> Manifest:
    """Read a manifest; raises BundleError saying what is wrong with it."""
    try:
        return records.decode(data, Manifest)
    except records.RecordError as e:
        raise BundleError(f"The bundle's manifest is wrong: {e}.") from e
