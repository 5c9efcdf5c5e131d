"""How a cause of irreproducibility shows in the bytes of two builds."""

from __future__ import annotations

import re
from collections.abc import Callable

from pipeline.engine.job import WORKSPACE
from pipeline.reproduce import formats
from pipeline.reproduce.case import Case
from pipeline.reproduce.difference import members

_DATE = re.compile(
    rb"\b(19|20)[0-9]{2}[-/.][0-9]{1,2}[-/.][0-9]{1,2}\b|\b[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?\b"
    rb"|\b(Jan|Feb|M.?r|Apr|Ma[iy]|Jun|Jul|Aug|Sep|O[ck]t|Nov|De[cz])[a-z]*\.? +[0-9]{1,2}\b"
    rb"|\b[0-9]{1,2}\.? (Jan|Feb|M.?r|Apr|Ma[iy]|Jun|Jul|Aug|Sep|O[ck]t|Nov|De[cz])"
    rb"|\b(19|20)[0-9]{2}(0[1-9]|1[0-2])[0-3][0-9]\b|\b1[6-9][0-9]{8}\b"
)
# mktemp(1), and gcc's temporary files.
_TEMPORARY = re.compile(rb"/tmp/(?:tmp\.?[A-Za-z0-9_]{6,10}|cc[A-Za-z0-9]{6})\b")
_EXECUTABLE = (b"\x7fELF", b"MZ")


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


def _temporary_name(case: Case) -> bool:
    names = [{m[0] for m in _TEMPORARY.finditer(piece)} for pair in case.pieces() for piece in pair]
    return any(one and two and one != two for one, two in zip(names[::2], names[1::2], strict=True))


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
    names = [[member.name.encode(errors="replace") for member in members(data)] for data in case.contents]
    if names[0] and names[0] != names[1] and sorted(names[0]) == sorted(names[1]):
        return names[0], names[1]
    for split in (bytes.splitlines, bytes.split):
        one, two = (split(data) for data in case.contents)
        if one != two and sorted(one) == sorted(two):
            return one, two
    return None


def _line_order(case: Case) -> bool:
    return _lines(case) is not None and not formats.archive_order(case)


def _locale_order(case: Case) -> bool:
    lists = _lines(case)
    if lists is None:
        return False
    moved = [(a, b) for a, b in zip(*lists, strict=True) if a != b]
    one, two = [a for a, _ in moved], [b for _, b in moved]
    # Roughly how glibc's locales sort: marks do not count at first, nor does the case.
    letters = {line: re.sub(rb"\W", b"", line).lower() for line in two}
    return one == sorted(one) and two == sorted(two, key=lambda line: (letters[line], line.swapcase()))


def _decimal_comma(case: Case) -> bool:
    number = re.compile(rb"[0-9][.,][0-9]")
    return any(
        number.search(left) and number.search(right) and left.replace(b".", b",") == right.replace(b".", b",")
        for left, right in case.pieces()
    )


def _addresses(case: Case) -> bool:
    """A list of symbols (nm(1)) that differs in where they are alone."""
    if case.contents is None:
        return False
    lines = [sorted(data.splitlines()) for data in case.contents]
    names = [sorted(re.sub(rb"^(0x)?[0-9a-f]{8,16} ", b"", line) for line in each) for each in lines]
    return names[0] == names[1] and lines[0] != lines[1]


def _jobs(case: Case) -> bool:
    one, two = (re.compile(rb"(?<![0-9])%d(?![0-9])" % count) for count in case.jobs)
    if case.jobs[0] == case.jobs[1]:
        return False
    return any(one.sub(b"", left) == two.sub(b"", right) for left, right in case.pieces())


DETECTORS: dict[str, Callable[[Case], bool]] = {
    "gone": _gone,
    "mode": _attribute("mode"),
    "owner": lambda case: _attribute("uid")(case) or _attribute("gid")(case),
    "mtime": _mtime_only,
    "link": _attribute("target"),
    "gzip-header": formats.gzip_header,
    "pyc": formats.pyc,
    "pe-timestamp": formats.pe_timestamp,
    "elf-padding": formats.elf_padding,
    "identity": _identity,
    "host-name": _host_name,
    "user-name": _user_name,
    "home": _home,
    "build-path": _build_path,
    "time-zone": _time_zone,
    "date": _date,
    "locale-order": _locale_order,
    "archive-order": formats.archive_order,
    "packed-mtime": formats.packed_differs("mtime"),
    "packed-owner": formats.packed_differs("owner"),
    "packed-mode": formats.packed_differs("mode"),
    "temporary-name": _temporary_name,
    "line-order": _line_order,
    "decimal-comma": _decimal_comma,
    "jobs": _jobs,
    "addresses": _addresses,
    "same-content": formats.same_content,
}
"""By the name that causes.toml uses."""
