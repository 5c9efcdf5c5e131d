"""A release: which Xen is built, from what, where, and what must come out. Read from releases/*.toml."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec

from pipeline.definition import convert, load_toml, overlay
from pipeline.errors import UsageError
from pipeline.source import Commit, GitSource, Source, Tag
from pipeline.version import PROJECT

PACKAGE = "xen"
"""What packages are called, or begin with, unless a release file says otherwise."""
RELEASES = PROJECT / "releases"

# PKGBUILD(5), "pkgver": no colons, slashes, hyphens or whitespace.
PackageVersion = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+]*$")]
InstalledPath = Annotated[str, msgspec.Meta(pattern=r"^[^/\s]([^\s]*[^/\s])?$")]
Token = Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z0-9_]*$")]


Word = str | tuple[str, ...]
# PKGBUILD(5), "pkgname".
PackageName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9@._+-]*$")]
XenVersion = Annotated[str, msgspec.Meta(pattern=r"^[0-9]+\.[0-9]+[^\s]*$")]
FeatureName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]*$")]
SeriesName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of a release that a build can do without; ``[features.NAME]`` in a release file.

    ``sources``, ``git``, ``expected``, ``accepted`` are added to the release's own where the feature is in;
    ``tokens`` are words added to the release's lists then, and ``without`` those added where it is left
    out. ``needs`` names features without which this one cannot be.
    """

    sources: tuple[Source, ...] = ()
    git: tuple[GitSource, ...] = ()
    tokens: dict[Token, tuple[str, ...]] = {}
    without: dict[Token, tuple[str, ...]] = {}
    expected: dict[str, tuple[InstalledPath, ...]] = {}
    accepted: tuple[Accepted, ...] = ()
    needs: tuple[FeatureName, ...] = ()


class Accepted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A finding of the check that a release lives with, and why; ``path`` is a pattern of fnmatch(3)."""

    code: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z-]*$")]
    path: str = ""
    reason: Annotated[str, msgspec.Meta(min_length=10)]


LAST_TIME = 0xFFFFFFFF
"""The last second since 1970 that formats in packages have (gzip's header, RFC 1952): in 2106."""


class BranchLock(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a branch stood for on one day; ``lock.json`` in a build's folder.

    It takes the place of the same-named fields of the release, and ``commit`` that of its first git
    source. ``count`` is the number of commits up to there. ``names`` are what that commit's own makefile
    says of the other projects that it may be built with, such as QEMU_UPSTREAM_REVISION.
    """

    release: str
    branch: str
    commit: Commit
    count: int
    version: PackageVersion
    xen_version: XenVersion
    source_date_epoch: Annotated[int, msgspec.Meta(ge=1, le=LAST_TIME)]
    names: dict[str, str] = {}


class Room(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a release takes at most, in MiB, as measured: see ``python -m benchmarks``.

    ``build`` is the workspace of its build and ``artifacts`` what the build leaves. ``memory`` is that of the
    build and the boot, besides ``each_job`` for every process of the compile.
    """

    build: Annotated[int, msgspec.Meta(ge=1)] = 8192
    artifacts: Annotated[int, msgspec.Meta(ge=1)] = 512
    memory: Annotated[int, msgspec.Meta(ge=1)] = 1536
    each_job: Annotated[int, msgspec.Meta(ge=1)] = 512


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One Xen release.

    ``version`` and ``revision`` are makepkg's pkgver and pkgrel. ``xen_version`` is what the
    hypervisor's banner says. ``source_date_epoch`` is the time of upstream's last commit, in seconds
    since 1970. ``image`` names the image that it is built in. ``tokens`` fills PKGBUILD.in: a string
    as it is, a list as quoted words of a bash array. ``sources`` are files and ``git`` commits.
    ``expected`` lists, by package, the files without which it would not be what its users need.
    ``accepted`` are the check's findings that are known and bearable.
    ``package`` is what stands for ``xen`` in the packages' names. ``branch`` is the branch of the first git
    source that nightly builds follow; ``lock`` is what it stands for then (see locked), never in a file.
    A file may begin with ``like = "NAME"``: it then says only what differs from that release's file.
    ``series`` names the file in package/series/ that holds its build steps, or several: what a later one
    says is laid over what the ones before it say. ``features`` can be left out,
    all of them or some; ``left_out`` are those that are (see leave_out), and is never in a file. ``room`` is
    what it takes of a host.
    """

    name: str = ""
    version: PackageVersion
    revision: Annotated[int, msgspec.Meta(ge=1)] = 1
    xen_version: XenVersion
    source_date_epoch: Annotated[int, msgspec.Meta(ge=1, le=LAST_TIME)]
    image: str
    sources: tuple[Source, ...] = ()
    git: tuple[GitSource, ...] = ()
    tokens: dict[Token, Word] = {}
    expected: dict[str, tuple[InstalledPath, ...]] = {}
    accepted: tuple[Accepted, ...] = ()
    package: PackageName = PACKAGE
    series: SeriesName | tuple[SeriesName, ...] = ()
    features: dict[FeatureName, Feature] = {}
    left_out: tuple[FeatureName, ...] = ()
    branch: Tag | None = None
    lock: BranchLock | None = None
    room: Room = Room()

    def locked(self, lock: BranchLock) -> Release:
        """Return the release with its branch at a lock's commit; raises UsageError for another's lock."""
        if self.branch is None or lock.release != self.name:
            raise UsageError(f"The lock is one of release {lock.release}, not of {self.name}.")
        first, *others = self.git
        return msgspec.structs.replace(
            self,
            version=lock.version,
            xen_version=lock.xen_version,
            source_date_epoch=lock.source_date_epoch,
            git=(msgspec.structs.replace(first, commit=lock.commit, version=lock.version), *others),
            tokens={**self.tokens, "CHANGESET": f"git:{lock.commit[:10]}"},
            lock=lock,
        )

    def named(self, package: str) -> str:
        """What a package of Xen, such as ``xen-docs``, is called here."""
        return self.package + package.removeprefix(PACKAGE)

    @property
    def series_files(self) -> tuple[SeriesName, ...]:
        """The names in ``series``."""
        return (self.series,) if isinstance(self.series, str) else self.series


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
    if release.lock is not None:
        raise UsageError(f"{path}: a lock is made by ./inv nightly (at lock).")
    if release.branch is not None and not release.git:
        raise UsageError(f"{path}: there is no git source whose branch it could be (at branch).")
    if release.left_out:
        raise UsageError(f"{path}: what is left out is said on the command (at left_out).")
    release = _compose(msgspec.structs.replace(release, name=name), without)
    _check_sources(name, release)
    return release


def _load(path: Path) -> dict[str, Any]:
    """Read a release file, laid over the one that it says it is ``like``, and that over the next."""
    data = load_toml(path)
    seen = [path.stem]
    while (like := data.pop("like", None)) is not None:
        if not isinstance(like, str) or like not in known():
            raise UsageError(
                f"{path}: there is no release {like!r} (at like).", hint=f"Releases: {', '.join(known())}."
            )
        if like in seen:
            raise UsageError(f"{path}: {' is like '.join([*seen, like])} (at like).")
        seen.append(like)
        data = overlay(load_toml(RELEASES / f"{like}.toml"), data)
    return data


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
    accepted = [*release.accepted]
    for name, feature in release.features.items():
        _check_needs(release, name, left_out)
        for token, words in (feature.without if name in left_out else feature.tokens).items():
            _extend(release, tokens, name, token, words)
        if name in left_out:
            continue
        sources += feature.sources
        git += feature.git
        accepted += feature.accepted
        for package, paths in feature.expected.items():
            expected[package] = (*expected.get(package, ()), *paths)
    if release.package != PACKAGE:
        expected = {release.named(package): paths for package, paths in expected.items()}
        tokens["PACKAGES"] = tuple(release.named(word) for word in tokens.get("PACKAGES", ()))
    return msgspec.structs.replace(
        release,
        sources=tuple(sources),
        git=tuple(git),
        tokens=tokens,
        expected=expected,
        accepted=tuple(accepted),
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
