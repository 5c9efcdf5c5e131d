"""How a cause of irreproducibility shows in files of a known format: compressed, packed, or programs."""

from __future__ import annotations

import struct
from collections.abc import Callable

from pipeline.reproduce import difference
from pipeline.reproduce.case import Case
from pipeline.reproduce.difference import members, unpacked


def gzip_header(case: Case) -> bool:
    """Another time or name in the header of gzip."""
    one, two = (difference.gzip_header(data) for data in case.contents or (b"", b""))
    return bool(one) and bool(two) and one != two


def pyc(case: Case) -> bool:
    """Byte code that differs in what it says of its source alone (PEP 552)."""
    if case.contents is None or not case.difference.path.endswith(".pyc"):
        return False
    one, two = case.contents
    return one[:16] != two[:16] and one[16:] == two[16:]


def pe_timestamp(case: Case) -> bool:
    """Another time in the header of a PE file."""
    # PE Format, "COFF File Header": the time stamp stands 8 bytes behind the signature.
    if case.contents is None or not all(data.startswith(b"MZ") and len(data) > 64 for data in case.contents):
        return False
    offsets = {struct.unpack_from("<I", data, 60)[0] for data in case.contents}
    if len(offsets) != 1:
        return False
    at = offsets.pop()
    one, two = case.contents
    return one[at : at + 4] == b"PE\0\0" and one[at + 8 : at + 12] != two[at + 8 : at + 12]


def elf_padding(case: Case) -> bool:
    """Bytes behind the end of the last segment of a 32-bit ELF file (gabi, "Program Header")."""
    if case.contents is None or len(case.contents[0]) != len(case.contents[1]):
        return False
    one, two = case.contents
    if not one.startswith(b"\x7fELF\x01\x01") or len(one) < 52:
        return False
    offset, size, count = (
        struct.unpack_from("<I", one, 28)[0],
        *struct.unpack_from("<HH", one, 42),
    )
    ends = [0]
    for number in range(count):
        at = offset + number * size
        if at + 32 <= len(one):
            kind, start, _, _, length = struct.unpack_from("<IIIII", one, at)
            if kind == 1:
                ends.append(start + length)
    return max(ends) > 0 and one[: max(ends)] == two[: max(ends)]


def archive_order(case: Case) -> bool:
    """An archive's members in another order."""
    if case.contents is None:
        return case.difference.path == "(its archive)"
    one, two = ([member.name for member in members(data)] for data in case.contents)
    return bool(one) and one != two and sorted(one) == sorted(two)


def packed_differs(*names: str) -> Callable[[Case], bool]:
    """Make a detector of archives whose members differ in what the archive says of them alone."""

    def differs(case: Case) -> bool:
        one, two = (members(data) for data in case.contents or (b"", b""))
        return (
            bool(one)
            and [m.name for m in one] == [m.name for m in two]
            and any(
                getattr(a, name) != getattr(b, name) for a, b in zip(one, two, strict=True) for name in names
            )
        )

    return differs


def same_content(case: Case) -> bool:
    """The same bytes, packed differently."""
    if case.contents is None:
        return case.difference.path == "(its compression)"
    one, two = (unpacked(data) for data in case.contents)
    return one is not None and one == two
