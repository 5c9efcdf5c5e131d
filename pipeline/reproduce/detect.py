"""How a cause of irreproducibility shows in the bytes of two builds."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

from pipeline.engine.job import WORKSPACE, Circumstances
from pipeline.reproduce.difference import Difference, Side, member_names, unpacked

_CONTEXT = 48
_PIECES = 200
_DATE = re.compile(
    rb"\b(19|20)[0-9]{2}[-/.][0-9]{1,2}[-/.][0-9]{1,2}\b|\b[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?\b"
    rb"|\b(Jan|Feb|M.?r|Apr|Ma[iy]|Jun|Jul|Aug|Sep|O[ck]t|Nov|De[cz])[a-z]*\.? +[0-9]{1,2}\b"
    rb"|\b[0-9]{1,2}\.? (Jan|Feb|M.?r|Apr|Ma[iy]|Jun|Jul|Aug|Sep|O[ck]t|Nov|De[cz])"
    rb"|\b(19|20)[0-9]{2}(0[1-9]|1[0-2])[0-3][0-9]\b|\b1[6-9][0-9]{8}\b"
)
_EXECUTABLE = (b"\x7fELF", b"MZ")


@dataclass(frozen=True)
class Case:
    """A difference, and the circumstances of the two builds; ``jobs`` are their numbers of processes."""

    difference: Difference
    first: Circumstances
    second: Circumstances
    jobs: tuple[int, int]

    @property
    def sides(self) -> tuple[Side, Side]:
        """The two things that differ."""
        return self.difference.first, self.difference.second

    @property
    def contents(self) -> tuple[bytes, bytes] | None:
        """Both contents, where both are known and differ."""
        one, two = (side.content for side in self.sides)
        return None if one is None or two is None or one == two else (one, two)

    def pieces(self) -> Iterator[tuple[bytes, bytes]]:
        """The parts of the contents that differ, with what stands around them."""
        if self.contents is not None:
            yield from _pieces(*self.contents)

    def differs_by(self, one: str, two: str) -> bool:
        """Whether one word stands in the first's differing parts, and another in the second's."""
        if not one or not two or one == two:
            return False
        return any(one.encode() in left and two.encode() in right for left, right in self.pieces())


def _pieces(one: bytes, two: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(one) == len(two):
        yield from _aligned(one, two)
        return
    left, right = one.splitlines(keepends=True), two.splitlines(keepends=True)
    if len(left) > 20_000 or len(right) > 20_000 or len(left) < 3:
        # Too much for a comparison line by line: what stands around the first difference.
        start = _same_until(one, two, 0)
        end = _same_until(one[:start:-1], two[:start:-1], 0)
        before = max(0, start - _CONTEXT)
        part_one, part_two = (data[before : len(data) - end + _CONTEXT][:4096] for data in (one, two))
        yield part_one, part_two
        return
    for tag, a, b, c, d in SequenceMatcher(None, left, right, autojunk=False).get_opcodes()[:_PIECES]:
        if tag != "equal":
            yield b"".join(left[a:b]), b"".join(right[c:d])


def _same_until(one: bytes, two: bytes, start: int) -> int:
    """Where two contents first differ from ``start`` on, or where the shorter ends."""
    low, high = start, min(len(one), len(two))
    step = 64
    while low < high:
        end = min(high, low + step)
        if one[low:end] == two[low:end]:
            low, step = end, step * 2
        elif end - low == 1:
            return low
        else:
            high, step = end, max(1, (end - low) // 2)
    return low


def _aligned(one: bytes, two: bytes) -> Iterator[tuple[bytes, bytes]]:
    count, position = 0, 0
    while position < len(one) and count < _PIECES:
        start = _same_until(one, two, position)
        if start >= len(one):
            return
        end = start + _CONTEXT
        yield one[max(0, start - _CONTEXT) : end], two[max(0, start - _CONTEXT) : end]
        position, count = end, count + 1


def _gone(case: Case) -> bool:
    inner = "//" in case.difference.path
    return any(side.content is None if inner else side.member is None for side in case.sides) and not (
        case.difference.path.startswith("(")
    )


def _attribute(name: str) -> Callable[[Case], bool]:
    def differs(case: Case) -> bool:
        one, two = (side.member for side in case.sides)
        if one is None or two is None or "//" in case.difference.path:
            return False
        return bool(getattr(one, name) != getattr(two, name))

    return differs


def _mtime_only(case: Case) -> bool:
    return case.contents is None and _attribute("mtime")(case)


def _gzip_header(case: Case) -> bool:
    # RFC 1952, section 2.3: flags, then the time in bytes 4 to 7; the name follows behind byte 10.
    if case.contents is None or not all(d.startswith(b"\x1f\x8b") and len(d) > 10 for d in case.contents):
        return False
    one, two = case.contents
    return one[4:8] != two[4:8] or one[3] != two[3] or (one[3] & 8 != 0 and one[10:42] != two[10:42])


def _pyc(case: Case) -> bool:
    if case.contents is None or not case.difference.path.endswith(".pyc"):
        return False
    one, two = case.contents
    return one[:16] != two[:16] and one[16:] == two[16:]


def _pe_timestamp(case: Case) -> bool:
    # PE Format, "COFF File Header": the time stamp stands 8 bytes behind the signature.
    if case.contents is None or not all(data.startswith(b"MZ") and len(data) > 64 for data in case.contents):
        return False
    offsets = {struct.unpack_from("<I", data, 60)[0] for data in case.contents}
    if len(offsets) != 1:
        return False
    at = offsets.pop()
    one, two = case.contents
    return one[at : at + 4] == b"PE\0\0" and one[at + 8 : at + 12] != two[at + 8 : at + 12]


def _elf_padding(case: Case) -> bool:
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


def _identity(case: Case) -> bool:
    return any(detector(case) for detector in (_host_name, _user_name, _date, _time_zone))


def _host_name(case: Case) -> bool:
    return case.differs_by(case.first.hostname, case.second.hostname)


def _user_name(case: Case) -> bool:
    names = case.differs_by(case.first.user, case.second.user)
    return names or case.differs_by(str(case.first.uid), str(case.second.uid))


def _home(case: Case) -> bool:
    homes = [c.environment.get("HOME", WORKSPACE) for c in (case.first, case.second)]
    return case.differs_by(homes[0], homes[1])


def _build_path(case: Case) -> bool:
    path = WORKSPACE.encode() + b"/"
    return any((path in left) != (path in right) for left, right in case.pieces())


def _time_zone(case: Case) -> bool:
    zone = case.second.environment.get("TZ", "")
    return bool(zone) and any(b"XYZ" in right or b"+1345" in right for _, right in case.pieces())


def _date(case: Case) -> bool:
    if not case.second.preload and _time_zone(case):
        return False  # the clock was not moved, and the time zone shows
    for left, right in case.pieces():
        if _EXECUTABLE[0] in left[:4]:
            continue
        dates = [{match[0] for match in _DATE.finditer(piece)} for piece in (left, right)]
        if dates[0] and dates[1] and dates[0] != dates[1]:
            return True
    return False


def _lines(case: Case) -> tuple[list[bytes], list[bytes]] | None:
    """Both contents as lines or words, where they hold the same ones in another order."""
    if case.contents is None:
        return None
    names = [[name.encode(errors="replace") for name in member_names(data)] for data in case.contents]
    if names[0] and names[0] != names[1] and sorted(names[0]) == sorted(names[1]):
        return names[0], names[1]
    for split in (bytes.splitlines, bytes.split):
        one, two = (split(data) for data in case.contents)
        if one != two and sorted(one) == sorted(two):
            return one, two
    return None


def _line_order(case: Case) -> bool:
    return _lines(case) is not None and not _archive_order(case)


def _locale_order(case: Case) -> bool:
    lists = _lines(case)
    if lists is None:
        return False
    moved = [(a, b) for a, b in zip(*lists, strict=True) if a != b]
    one, two = [a for a, _ in moved], [b for _, b in moved]
    # Roughly how glibc's locales sort: marks do not count at first, nor does the case.
    letters = {line: re.sub(rb"\W", b"", line).lower() for line in two}
    return one == sorted(one) and two == sorted(two, key=lambda line: (letters[line], line.swapcase()))


def _archive_order(case: Case) -> bool:
    if case.contents is None:
        return case.difference.path == "(its archive)"
    one, two = (member_names(data) for data in case.contents)
    return bool(one) and one != two and sorted(one) == sorted(two)


def _decimal_comma(case: Case) -> bool:
    number = re.compile(rb"[0-9][.,][0-9]")
    return any(
        number.search(left) and number.search(right) and left.replace(b".", b",") == right.replace(b".", b",")
        for left, right in case.pieces()
    )


def _jobs(case: Case) -> bool:
    one, two = (re.compile(rb"(?<![0-9])%d(?![0-9])" % count) for count in case.jobs)
    if case.jobs[0] == case.jobs[1]:
        return False
    return any(one.sub(b"", left) == two.sub(b"", right) for left, right in case.pieces())


def _same_content(case: Case) -> bool:
    if case.contents is None:
        return case.difference.path == "(its compression)"
    one, two = (unpacked(data) for data in case.contents)
    return one is not None and one == two


DETECTORS: dict[str, Callable[[Case], bool]] = {
    "gone": _gone,
    "mode": _attribute("mode"),
    "owner": lambda case: _attribute("uid")(case) or _attribute("gid")(case),
    "mtime": _mtime_only,
    "link": _attribute("target"),
    "gzip-header": _gzip_header,
    "pyc": _pyc,
    "pe-timestamp": _pe_timestamp,
    "elf-padding": _elf_padding,
    "identity": _identity,
    "host-name": _host_name,
    "user-name": _user_name,
    "home": _home,
    "build-path": _build_path,
    "time-zone": _time_zone,
    "date": _date,
    "locale-order": _locale_order,
    "archive-order": _archive_order,
    "line-order": _line_order,
    "decimal-comma": _decimal_comma,
    "jobs": _jobs,
    "same-content": _same_content,
}
"""By the name that causes.toml uses."""
