"""Where two builds of a package differ: member by member, and inside of what is compressed or packed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import libarchive
from libarchive.exception import ArchiveError

from pipeline import package
from pipeline.package import Member

_MAX = 256 << 20
_DEPTH = 4
_DERIVED = {".MTREE", ".BUILDINFO", ".PKGINFO"}
_AR = b"!<arch>\n"
_ZIP = b"PK\x03\x04"
_CPIO = (b"070701", b"070702", b"070707")


@dataclass(frozen=True)
class Side:
    """One of two things that differ: a package's member, or None, and its content as far as it is known."""

    member: Member | None
    content: bytes | None


@dataclass(frozen=True)
class Difference:
    """Two members of the same path that are not the same.

    ``path`` is the one in the package; what lies inside of a compressed or packed file follows after ``//``.
    """

    package: str
    path: str
    first: Side
    second: Side


def compare(first: Path, second: Path) -> Iterator[Difference]:
    """Compare two package files, and look as far into them as their differences go; raises PackageError."""
    one, two = package.read(first).members, package.read(second).members
    paths = [path for path in one.keys() | two.keys() if one.get(path) != two.get(path)]
    # These follow from everything else: what they would say has a difference of its own.
    shown = sorted(path for path in paths if path not in _DERIVED) or sorted(paths)
    if not shown or (set(shown) <= _DERIVED and list(one) != list(two)):
        yield _whole(first, second, list(one), list(two))
        return
    for path in shown:
        sides = _side(one.get(path)), _side(two.get(path))
        if (apart := _attributes_apart(first.name, path, *sides)) is not None:
            yield apart
            # What is left to explain is the content.
            sides = sides[0], Side(sides[0].member, sides[1].content)
        yield from _inside(first.name, path, *sides, _DEPTH)


def _attributes_apart(name: str, path: str, one: Side, two: Side) -> Difference | None:
    """Where a file's content differs and its mode, owner or time as well, the difference without the content.

    Either would hide the other's cause.
    """
    if one.member is None or two.member is None or one.content == two.content:
        return None
    first, second = ((m.mode, m.uid, m.gid, m.mtime, m.target) for m in (one.member, two.member))
    return Difference(name, path, Side(one.member, None), Side(two.member, None)) if first != second else None


def _whole(first: Path, second: Path, one: list[str], two: list[str]) -> Difference:
    """The packages' members are the same: what is left is their order, or how they are packed."""
    sides = [Side(None, unpacked(path.read_bytes())) for path in (first, second)]
    if one == two and sides[0].content != sides[1].content:
        return Difference(first.name, "(its archive)", *sides)
    return Difference(first.name, "(its archive)" if one != two else "(its compression)", *sides)


def _side(member: Member | None) -> Side:
    return Side(member, member.content if member else None)


def _inside(name: str, path: str, one: Side, two: Side, depth: int) -> Iterator[Difference]:
    """Look into what is compressed or packed, as the difference is mostly not that of the compressor.

    What differs outside as well, a header or the members' order, would be hidden by it, and comes first.
    """
    if depth and one.content and two.content and one.content != two.content:
        left, right = unpacked(one.content), unpacked(two.content)
        if left is not None and right is not None and left != right:
            if gzip_header(one.content) != gzip_header(two.content):
                yield Difference(name, path, one, two)
            yield from _inside(name, f"{path}//", Side(one.member, left), Side(two.member, right), depth - 1)
            return
        packed = members(one.content), members(two.content)
        first, second = ({member.name: member.content for member in each} for each in packed)
        if first and second and first != second:
            if first.keys() == second.keys() and _outline(packed[0]) != _outline(packed[1]):
                yield Difference(name, path, one, two)
            yield from _packed(name, path, (one, first), (two, second), depth)
            return
    yield Difference(name, path, one, two)


def _packed(
    name: str,
    path: str,
    one: tuple[Side, dict[str, bytes]],
    two: tuple[Side, dict[str, bytes]],
    depth: int,
) -> Iterator[Difference]:
    for inner in sorted(one[1].keys() | two[1].keys()):
        left, right = one[1].get(inner), two[1].get(inner)
        if left != right:
            sides = Side(one[0].member, left), Side(two[0].member, right)
            yield from _inside(name, f"{path}//{inner}", *sides, depth - 1)


def unpacked(data: bytes) -> bytes | None:
    """What a compressed file holds, within bounds; None where it is not one."""
    openers: dict[bytes, Callable[[io.BytesIO], io.BufferedIOBase]] = {
        b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
        b"\xfd7zXZ\0": lzma.LZMAFile,
        b"BZh": bz2.BZ2File,
    }
    for magic, opener in openers.items():
        if data.startswith(magic):
            try:
                with opener(io.BytesIO(data)) as file:
                    content = file.read(_MAX + 1)
            except (OSError, EOFError, zlib.error, lzma.LZMAError):
                return None
            return content if len(content) <= _MAX else None
    return None


@dataclass(frozen=True)
class Packed:
    """A member of an archive inside of a package, and what the archive says of it."""

    name: str
    content: bytes
    mtime: int
    owner: tuple[int, int, str, str]
    mode: int


def members(data: bytes) -> list[Packed]:
    """The members of an ar, cpio, tar or zip archive, in order; none where it is not one."""
    is_tar = data[257:262] == b"ustar"
    if not (is_tar or data.startswith((_AR, _ZIP, *_CPIO))):
        return []
    try:
        with libarchive.memory_reader(data) as archive:
            return [
                Packed(
                    name=entry.pathname,
                    content=b"".join(entry.get_blocks()),
                    mtime=int(entry.mtime or 0),
                    owner=(entry.uid, entry.gid, entry.uname or "", entry.gname or ""),
                    mode=entry.mode,
                )
                for entry in archive
            ]
    except (ArchiveError, UnicodeError, TypeError):
        return []


def _outline(packed: list[Packed]) -> list[tuple[object, ...]]:
    """What an archive says of its members, besides their contents."""
    return [(member.name, member.mtime, member.owner, member.mode) for member in packed]


def gzip_header(data: bytes) -> bytes:
    """What gzip's header says of the file, its time and name (RFC 1952, section 2.3); else nothing."""
    if not data.startswith(b"\x1f\x8b") or len(data) < 10:
        return b""
    # Not XFL and OS in bytes 8 and 9, which are the compressor's.
    start = 12 + int.from_bytes(data[10:12], "little") if data[3] & 4 else 10
    name = data[start : data.find(b"\0", start) + 1] if data[3] & 8 else b""
    return data[:8] + name
