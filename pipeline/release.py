"""A release: which Xen is built, from what, where, and what must come out. Read from releases/*.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from pipeline.definition import read_toml
from pipeline.errors import UsageError
from pipeline.source import GitSource, Source

PROJECT = Path(__file__).resolve().parents[1]
RELEASES = PROJECT / "releases"

# PKGBUILD(5), "pkgver": no colons, slashes, hyphens or whitespace.
PackageVersion = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+]*$")]
InstalledPath = Annotated[str, msgspec.Meta(pattern=r"^[^/\s]([^\s]*[^/\s])?$")]
Token = Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z0-9_]*$")]


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One Xen release.

    ``version`` and ``revision`` are makepkg's pkgver and pkgrel. ``xen_version`` is what the
    hypervisor's banner says. ``source_date_epoch`` is the time of upstream's last commit, in seconds
    since 1970. ``image`` names the image that it is built in. ``tokens`` fills PKGBUILD.in: a string
    as it is, a list as quoted words of a bash array. ``sources`` are files and ``git`` commits.
    ``expected`` lists, by package, the files without which it would not be what its users need.
    """

    name: str = ""
    version: PackageVersion
    revision: Annotated[int, msgspec.Meta(ge=1)] = 1
    xen_version: Annotated[str, msgspec.Meta(pattern=r"^[0-9]+\.[0-9]+[^\s]*$")]
    source_date_epoch: Annotated[int, msgspec.Meta(ge=1)]
    image: str
    sources: tuple[Source, ...] = ()
    git: tuple[GitSource, ...] = ()
    tokens: dict[Token, str | tuple[str, ...]] = {}
    expected: dict[str, tuple[InstalledPath, ...]] = {}


def known() -> list[str]:
    """The names of all releases."""
    return sorted(path.stem for path in RELEASES.glob("*.toml"))


def read(name: str) -> Release:
    """Read ``releases/NAME.toml``; raises UsageError for a mistake in it, or listing what there is."""
    if name not in known():
        raise UsageError(f"There is no release {name!r}.", hint=f"Releases: {', '.join(known()) or 'none'}.")
    release = read_toml(RELEASES / f"{name}.toml", Release)
    if release.name:
        raise UsageError(f"{RELEASES / name}.toml: the file's name is the release's name (at name).")
    _check_sources(name, release)
    return msgspec.structs.replace(release, name=name)


def _check_sources(name: str, release: Release) -> None:
    path = RELEASES / f"{name}.toml"
    if not release.sources and not release.git:
        raise UsageError(f"{path}: there is nothing to build from (at sources).")
    taken: set[str] = set()
    # A git source lies beside the files as NAME.tar, and unpacks to the folder NAME.
    names: list[tuple[str, tuple[str, ...]]] = []
    names += [(f"sources[{index}].name", (source.name,)) for index, source in enumerate(release.sources)]
    names += [(f"git[{index}].name", (git.name, git.file_name)) for index, git in enumerate(release.git)]
    for where, wanted in names:
        if not taken.isdisjoint(wanted):
            raise UsageError(f"{path}: two sources are called {wanted[0]} (at {where}).")
        taken.update(wanted)
