"""Reads pacman packages: the archive's members, .PKGINFO, .BUILDINFO and .MTREE.

A package may come from anywhere, so every size is bounded and a malformed one is a PackageError.
Formats: PKGBUILD(5), BUILDINFO(5), alpm-pkginfo(5), mtree(5).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import libarchive
from libarchive.exception import ArchiveError

from pipeline.errors import FailureError
from pipeline.files import PATH_MAX

MAX_CONTENT = 64 << 20
"""The largest file, in bytes, whose content is kept in memory."""

_MAX_MEMBERS = 1_000_000
_MAX_TOTAL = 16 << 30


class PackageError(FailureError):
    """A file is not a package that pacman could use."""


@dataclass(frozen=True)
class Member:
    """One member of a package's archive; ``target`` is a link's, ``sha256`` and ``content`` a file's.

    ``content`` is kept for small files only (see read). ``first`` is the path that the archive has a
    file's content under, where that is another one: a hard link.
    """

    path: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    target: str = ""
    sha256: str = ""
    content: bytes | None = field(default=None, repr=False)
    first: str = field(default="", compare=False)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self.mode)

    @property
    def permissions(self) -> int:
        """The permission bits, set-id bits included."""
        return stat.S_IMODE(self.mode)


@dataclass(frozen=True)
class MtreeEntry:
    """What .MTREE says of one path; None where it says nothing."""

    path: str
    kind: str
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    target: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Package:
    """A package file, read whole."""

    file: Path
    members: dict[str, Member]
    pkginfo: dict[str, tuple[str, ...]]
    buildinfo: dict[str, tuple[str, ...]]
    mtree: dict[str, MtreeEntry]
    install: bytes | None

    @property
    def name(self) -> str:
        """pkgname."""
        return self.pkginfo["pkgname"][0]

    @property
    def version(self) -> str:
        """Pkgver and pkgrel, with the epoch where there is one."""
        return self.pkginfo["pkgver"][0]

    @property
    def files(self) -> Iterator[Member]:
        """The members that pacman installs."""
        return (m for m in self.members.values() if not m.path.startswith("."))


def read(path: Path) -> Package:
    """Read a package; raises PackageError for anything that is not one, naming what is wrong."""
    members: dict[str, Member] = {}
    total = 0
    try:
        with libarchive.file_reader(str(path)) as archive:
            for entry in archive:
                member = _hard_link(path, entry, members) if entry.islnk else _member(path, entry)
                if member.path in members:
                    raise PackageError(f"{path.name} holds {member.path} twice.")
                total += member.size
                if total > _MAX_TOTAL or len(members) >= _MAX_MEMBERS:
                    raise PackageError(f"{path.name} is larger than any package.")
                members[member.path] = member
    except (ArchiveError, UnicodeError) as e:
        raise PackageError(f"{path.name} is not a readable package: {e}.") from e
    except OSError as e:
        raise PackageError(f"{path} cannot be read: {e.strerror}.") from e
    install = members.get(".INSTALL")
    return Package(
        file=path,
        members=members,
        pkginfo=_key_values(path, members, ".PKGINFO"),
        buildinfo=_key_values(path, members, ".BUILDINFO"),
        mtree=parse_mtree(path.name, _inflate(path.name, _metadata(path, members, ".MTREE"))),
        install=install.content if install else None,
    )


def _member(path: Path, entry: libarchive.ArchiveEntry) -> Member:
    name = _name(path, entry.pathname)
    if not (entry.isreg or entry.isdir or entry.issym):
        raise PackageError(f"{path.name} has a member that is no file, folder or link: {name!r}.")
    digest = hashlib.sha256()
    blocks: list[bytes] = []
    size = 0
    for block in entry.get_blocks():
        size += len(block)
        if size > _MAX_TOTAL:
            raise PackageError(f"{path.name}: {name} is larger than any file of a package.")
        digest.update(block)
        if size <= MAX_CONTENT:
            blocks.append(block)
    return Member(
        path=name,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        size=size,
        mtime=int(entry.mtime or 0),
        target=os.fsdecode(entry.linkpath or b"") if entry.issym else "",
        sha256=digest.hexdigest() if entry.isreg else "",
        content=b"".join(blocks) if entry.isreg and size <= MAX_CONTENT else None,
    )


def _name(path: Path, pathname: str | bytes) -> str:
    # libarchive-c gives bytes of what is not UTF-8.
    name = os.fsdecode(pathname).removeprefix("./").rstrip("/")
    if len(os.fsencode(name)) >= PATH_MAX:
        raise PackageError(f"{path.name} has a member whose path is longer than any: {name[:60]!r}...")
    if not name or name.startswith("/") or ".." in name.split("/"):
        raise PackageError(f"{path.name} has a member that leads out of it: {name!r}.")
    return name


def _hard_link(path: Path, entry: libarchive.ArchiveEntry, members: Mapping[str, Member]) -> Member:
    """Return a second name of a file that came before; tar(5) stores it without content."""
    name = _name(path, entry.pathname)
    first = members.get(_name(path, entry.linkpath))
    if first is None or not first.is_file:
        raise PackageError(f"{path.name} has a hard link to a file that it does not hold: {name}.")
    return replace(first, path=name, first=first.first or first.path)


def _metadata(path: Path, members: dict[str, Member], name: str) -> bytes:
    member = members.get(name)
    if member is None or member.content is None:
        raise PackageError(f"{path.name} has no {name}: it was not made by makepkg.")
    return member.content


def _key_values(path: Path, members: dict[str, Member], name: str) -> dict[str, tuple[str, ...]]:
    values = parse_key_values(path.name, name, _metadata(path, members, name))
    for key in ("pkgname", "pkgver", "pkgbase") if name == ".PKGINFO" else ("format", "builddir"):
        if key not in values:
            raise PackageError(f"{path.name}: {name} has no {key}.")
    return values


def parse_key_values(package: str, name: str, data: bytes) -> dict[str, tuple[str, ...]]:
    """Parse .PKGINFO or .BUILDINFO: ``key = value`` a line, keys may come again, # begins a comment.

    Raises PackageError for a line of another shape.
    """
    values: dict[str, tuple[str, ...]] = {}
    try:
        text = data.decode()
    except UnicodeDecodeError as e:
        raise PackageError(f"{package}: {name} is not UTF-8.") from e
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        key, separator, value = line.partition(" = ")
        if not separator or not re.fullmatch(r"[a-z0-9_]+", key):
            # An empty value may have lost its trailing space.
            if not line.endswith(" ="):
                raise PackageError(f"{package}: {name}, line {number} is not `key = value`.")
            key, value = line.removesuffix(" ="), ""
        values[key] = (*values.get(key, ()), value)
    return values


def _inflate(package: str, data: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=31)
    try:
        text = inflater.decompress(data, MAX_CONTENT)
    except zlib.error as e:
        raise PackageError(f"{package}: .MTREE is not gzip: {e}.") from e
    if inflater.unconsumed_tail or not inflater.eof:
        raise PackageError(f"{package}: .MTREE is cut off or too large.")
    return text


def parse_mtree(package: str, data: bytes) -> dict[str, MtreeEntry]:
    """Parse an mtree(5) file as bsdtar writes it: ``/set`` defaults and one path with keywords a line.

    Raises PackageError for anything else.
    """
    defaults: dict[str, str] = {}
    entries: dict[str, MtreeEntry] = {}
    for number, raw in enumerate(data.split(b"\n"), 1):
        words = raw.decode("utf-8", "surrogateescape").split()
        if not words or words[0].startswith("#"):
            continue
        keywords = dict(word.partition("=")[::2] for word in words[1:])
        if words[0] == "/set":
            defaults |= keywords
        elif words[0] == "/unset":
            defaults = {k: v for k, v in defaults.items() if k not in keywords}
        elif words[0].startswith("./"):
            entry = _entry(package, number, words[0], {**defaults, **keywords})
            entries[entry.path] = entry
        else:
            raise PackageError(f"{package}: .MTREE, line {number} is neither a path nor /set.")
    return entries


def _entry(package: str, number: int, word: str, keywords: dict[str, str]) -> MtreeEntry:
    def integer(key: str, base: int = 10) -> int | None:
        try:
            return int(keywords[key], base) if key in keywords else None
        except ValueError as e:
            raise PackageError(f"{package}: .MTREE, line {number}: {key} is not a number.") from e

    if "type" not in keywords:
        raise PackageError(f"{package}: .MTREE, line {number} has no type.")
    link = keywords.get("link")
    return MtreeEntry(
        path=_unescape(word).removeprefix("./"),
        kind=keywords["type"],
        mode=integer("mode", 8),
        uid=integer("uid"),
        gid=integer("gid"),
        size=integer("size"),
        target=None if link is None else _unescape(link),
        sha256=keywords.get("sha256digest", keywords.get("sha256")),
    )


def _unescape(word: str) -> str:
    r"""Undo vis(3): ``\040`` and the like stand for one byte."""
    raw = word.encode("utf-8", "surrogateescape")
    return re.sub(rb"\\([0-3][0-7]{2})", lambda m: bytes([int(m[1], 8)]), raw).decode(
        "utf-8", "surrogateescape"
    )
