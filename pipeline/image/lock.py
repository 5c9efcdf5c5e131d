"""What fixes an image's bytes: its lock, written by image.lock beside the definition."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec

from pipeline.definition import convert, load_toml, toml_inline
from pipeline.errors import UsageError
from pipeline.image.definition import (
    CONTAINERS,
    ArchDefinition,
    ArchName,
    Day,
    Repository,
    definition_path,
    definition_sha256,
    read_definition,
)
from pipeline.image.oci import DockerImage
from pipeline.source import FileName, Sha256, Source, Url

_SEAL = "\nseal = "
_HEADER = "# Made by `./inv image.lock`; not to be edited by hand."

Size = Annotated[int, msgspec.Meta(ge=1)]
ImageId = Annotated[str, msgspec.Meta(pattern="^sha256:[0-9a-f]{64}$")]
# A file's URL with {repository}, {initial}, {name}, {item} and {file} in it; see pipeline.image.archive.
UrlTemplate = Annotated[str, msgspec.Meta(pattern=r"^https?://[^/\s][^\s]*\{file\}$")]


class LockedDeb(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One .deb of an image; ``version`` is for the reader of a diff, the hash is what counts."""

    name: FileName
    version: str
    url: Url
    size: Size
    sha256: Sha256

    @property
    def source(self) -> Source:
        """The package as something to fetch."""
        return Source(name=self.url.rpartition("/")[2], urls=(self.url,), size=self.size, sha256=self.sha256)


class LockedPackage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One pacman package of an image, as its repository's database has it.

    ``signature`` says how far its signature was verified when the lock was made.
    """

    repository: Repository
    name: ArchName
    version: Annotated[str, msgspec.Meta(pattern=r"^[^\s/]+$")]
    file: FileName
    size: Size
    sha256: Sha256
    signature: str


class LockedDatabase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A repository's database on the day of the snapshot."""

    repository: Repository
    url: Url
    size: Size
    sha256: Sha256

    @property
    def source(self) -> Source:
        """The database as something to fetch."""
        return Source(name=f"{self.repository}.db", urls=(self.url,), size=self.size, sha256=self.sha256)


class _Base(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    definition_sha256: Sha256
    source_date_epoch: Annotated[int, msgspec.Meta(ge=0)]
    rootfs_sha256: Sha256
    tree_sha256: Sha256
    image_id: ImageId


class DebianLock(_Base, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that fixes a Debian image's bytes, and what those bytes must then be.

    ``definition_sha256`` ties the lock to the definition that it was made from; ``release_sha256`` is
    the suite's signed InRelease file at that time. ``rootfs_sha256`` is the root file system's tar,
    ``tree_sha256`` its unpacked tree (see ``pipeline.image.tree``), ``image_id`` the docker image.
    """

    release_sha256: Sha256
    packages: tuple[LockedDeb, ...]
    kernel: LockedDeb | None = None

    @property
    def sources(self) -> list[Source]:
        """All that is fetched to assemble the image."""
        return [package.source for package in self.packages]


class ArchLock(_Base, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that fixes an Arch image's bytes, and what those bytes must then be; see DebianLock.

    ``urls`` are the places that may have a package, as templates: spelt out for every package they would
    bury what changed from one lock to the next.
    """

    snapshot: Day
    databases: Annotated[tuple[LockedDatabase, ...], msgspec.Meta(min_length=1)]
    urls: Annotated[tuple[UrlTemplate, ...], msgspec.Meta(min_length=1)]
    packages: Annotated[tuple[LockedPackage, ...], msgspec.Meta(min_length=1)]

    @property
    def sources(self) -> list[Source]:
        """All that is fetched to assemble the image."""
        return [*(d.source for d in self.databases), *(self.source(p) for p in self.packages)]

    def source(self, package: LockedPackage) -> Source:
        """A package as something to fetch."""
        urls = tuple(expand(template, package) for template in self.urls)
        return Source(name=package.file, urls=urls, size=package.size, sha256=package.sha256)


Lock: TypeAlias = DebianLock | ArchLock


def expand(template: str, package: LockedPackage) -> str:
    """Return where a package lies according to a template of ArchLock.urls."""
    # archive.org allows fewer characters in the name of an item than pacman in that of a package.
    item = package.name.translate(str.maketrans("@+.", "___"))
    values = {
        "repository": package.repository,
        "initial": package.name[0],
        "name": package.name,
        "item": item,
        "file": package.file,
    }
    for key, value in values.items():
        template = template.replace("{" + key + "}", value)
    return template


def lock_path(name: str) -> Path:
    """Where the lock of image ``name`` is or will be."""
    return CONTAINERS / f"{name}.lock"


def read_lock(name: str) -> Lock:
    """Read an image's lock.

    Raises UsageError where it is missing, was edited, or was made from another definition.
    """
    definition = read_definition(name)
    path = lock_path(name)
    remedy = f"./inv image.lock {name} makes a new one (it needs the network)."
    if not path.is_file():
        raise UsageError(f"Image {name} has no lock.", hint=remedy.replace("a new one", "it"))
    lock = parse_lock(path, arch=isinstance(definition, ArchDefinition))
    if lock.definition_sha256 != definition_sha256(definition):
        raise UsageError(f"{definition_path(name)} has changed since {path.name} was made.", hint=remedy)
    for key, problem in _contradictions(lock):
        raise UsageError(f"{path}: {problem} (at {key}).", hint=remedy)
    return lock


def parse_lock(path: Path, *, arch: bool) -> Lock:
    """Read a lock file; raises UsageError where its seal says that somebody has edited it."""
    data = load_toml(path)
    seal = data.pop("seal", None)
    body, found, _ = path.read_text(encoding="utf-8").rpartition(_SEAL)
    if not found or seal != _sealed(body + "\n"):
        raise UsageError(
            f"{path} is not what image.lock wrote: its contents and its seal do not fit.",
            hint=f"Take it from git, or make it anew: ./inv image.lock {path.stem}",
        )
    return convert(path, data, ArchLock) if arch else convert(path, data, DebianLock)


def _contradictions(lock: Lock) -> Iterable[tuple[str, str]]:
    """Find what a lock cannot say at once: each as a key and a sentence."""
    if lock.image_id != DockerImage(lock.rootfs_sha256, lock.source_date_epoch).id:
        yield "image_id", "is not the id that follows from rootfs_sha256 and source_date_epoch"
    names = [package.name for package in lock.packages]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield "packages", f"two packages are called {name}"
    if isinstance(lock, ArchLock):
        known = {database.repository for database in lock.databases}
        for package in lock.packages:
            if package.repository not in known:
                yield "packages", f"{package.name} is from {package.repository}, which is no database's"


def render_lock(lock: Lock) -> str:
    """Render a lock as TOML with one line a package, sorted, and a seal, so that two locks diff well."""
    lines = [_HEADER]
    for field in msgspec.structs.fields(type(lock)):
        value = getattr(lock, field.name)
        if isinstance(value, (str, int)):
            lines.append(f"{field.name} = {msgspec.json.encode(value).decode()}")
        elif isinstance(value, LockedDeb):
            lines.append(f"{field.name} = {toml_inline(msgspec.structs.asdict(value))}")
        elif value is not None:
            lines += [f"{field.name} = [", *(f"  {line}," for line in map(_item, value)), "]"]
    body = "\n".join(lines) + "\n"
    return f'{body}seal = "{_sealed(body)}"\n'


def _item(value: msgspec.Struct | str) -> str:
    if isinstance(value, str):
        return msgspec.json.encode(value).decode()
    return toml_inline(msgspec.structs.asdict(value))


def _sealed(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()
