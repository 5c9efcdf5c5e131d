"""A release: which Xen is built, from what, where, and what must come out. Read from releases/*.toml."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec

from pipeline.definition import convert, load_toml, overlay
from pipeline.errors import UsageError
from pipeline.source import GitSource, Source

PROJECT = Path(__file__).resolve().parents[1]
RELEASES = PROJECT / "releases"

# PKGBUILD(5), "pkgver": no colons, slashes, hyphens or whitespace.
PackageVersion = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+]*$")]
InstalledPath = Annotated[str, msgspec.Meta(pattern=r"^[^/\s]([^\s]*[^/\s])?$")]
Token = Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z0-9_]*$")]


Word = str | tuple[str, ...]
FeatureName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]*$")]
SeriesName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of a release that a build can do without; ``[features.NAME]`` in a release file.

    ``sources``, ``git`` and ``expected`` are added to the release's own where the feature is in;
    ``tokens`` are words added to the release's lists then, and ``without`` those added where it is left
    out. ``needs`` names features without which this one cannot be.
    """

    sources: tuple[Source, ...] = ()
    git: tuple[GitSource, ...] = ()
    tokens: dict[Token, tuple[str, ...]] = {}
    without: dict[Token, tuple[str, ...]] = {}
    expected: dict[str, tuple[InstalledPath, ...]] = {}
    needs: tuple[FeatureName, ...] = ()


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One Xen release.

    ``version`` and ``revision`` are makepkg's pkgver and pkgrel. ``xen_version`` is what the
    hypervisor's banner says. ``source_date_epoch`` is the time of upstream's last commit, in seconds
    since 1970. ``image`` names the image that it is built in. ``tokens`` fills PKGBUILD.in: a string
    as it is, a list as quoted words of a bash array. ``sources`` are files and ``git`` commits.
    ``expected`` lists, by package, the files without which it would not be what its users need.
    A file may begin with ``like = "NAME"``: it then says only what differs from that release's file.
    ``series`` names the file in package/series/ that holds its build steps. ``features`` can be left out,
    all of them or some; ``left_out`` are those that are (see leave_out), and is never in a file.
    """

    name: str = ""
    version: PackageVersion
    revision: Annotated[int, msgspec.Meta(ge=1)] = 1
    xen_version: Annotated[str, msgspec.Meta(pattern=r"^[0-9]+\.[0-9]+[^\s]*$")]
    source_date_epoch: Annotated[int, msgspec.Meta(ge=1)]
    image: str
    sources: tuple[Source, ...] = ()
    git: tuple[GitSource, ...] = ()
    tokens: dict[Token, Word] = {}
    expected: dict[str, tuple[InstalledPath, ...]] = {}
    series: SeriesName | None = None
    features: dict[FeatureName, Feature] = {}
    left_out: tuple[FeatureName, ...] = ()


def known() -> list[str]:
    """The names of all releases."""
    return sorted(path.stem for path in RELEASES.glob("*.toml"))


def known_features() -> set[str]:
    """The names of all features of all releases."""
    return {feature for name in known() for feature in read(name).features}


def read(name: str, without: Iterable[str] = ()) -> Release:
    """Read ``releases/NAME.toml`` and put its features in, but for those named in ``without``.

    Raises UsageError for a mistake in it, or listing what there is.
    """
    if name not in known():
        raise UsageError(f"There is no release {name!r}.", hint=f"Releases: {', '.join(known()) or 'none'}.")
    path = RELEASES / f"{name}.toml"
    release = convert(path, _load(path), Release)
    if release.name:
        raise UsageError(f"{path}: the file's name is the release's name (at name).")
    if release.left_out:
        raise UsageError(f"{path}: what is left out is said on the command (at left_out).")
    release = _compose(msgspec.structs.replace(release, name=name), without)
    _check_sources(name, release)
    return release


def _load(path: Path) -> dict[str, Any]:
    """Read a release file, laid over the one that it says it is ``like``."""
    data = load_toml(path)
    like = data.pop("like", None)
    if like is None:
        return data
    below = load_toml(RELEASES / f"{like}.toml")
    if "like" in below:
        raise UsageError(f"{path}: release {like} is like another one itself (at like).")
    return overlay(below, data)


def _compose(release: Release, without: Iterable[str]) -> Release:
    """Add the features to the release, or what stands for those that are left out."""
    left_out = sorted(set(without))
    for name in left_out:
        if name not in release.features:
            raise UsageError(
                f"Release {release.name} has no feature {name!r} to leave out.",
                hint=f"Features: {', '.join(sorted(release.features)) or 'none'}.",
            )
    sources, git = [*release.sources], [*release.git]
    tokens, expected = dict(release.tokens), dict(release.expected)
    for name, feature in release.features.items():
        _check_needs(release, name, left_out)
        for token, words in (feature.without if name in left_out else feature.tokens).items():
            _extend(release, tokens, name, token, words)
        if name in left_out:
            continue
        sources += feature.sources
        git += feature.git
        for package, paths in feature.expected.items():
            expected[package] = (*expected.get(package, ()), *paths)
    return msgspec.structs.replace(
        release,
        sources=tuple(sources),
        git=tuple(git),
        tokens=tokens,
        expected=expected,
        left_out=tuple(left_out),
    )


def _check_needs(release: Release, name: str, left_out: list[str]) -> None:
    for need in release.features[name].needs:
        if need not in release.features:
            raise UsageError(
                f"{RELEASES / release.name}.toml: there is no feature {need} (at features.{name}.needs)."
            )
        if need in left_out and name not in left_out:
            raise UsageError(f"{name} cannot be built without {need}.", hint=f"--without {need},{name}")


def _extend(
    release: Release, tokens: dict[Token, Word], feature: str, token: Token, words: tuple[str, ...]
) -> None:
    present = tokens.get(token)
    if not isinstance(present, tuple):
        raise UsageError(
            f"{RELEASES / release.name}.toml: {token} is no list of the release's tokens, "
            f"so nothing can be added (at features.{feature})."
        )
    tokens[token] = (*present, *words)


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
