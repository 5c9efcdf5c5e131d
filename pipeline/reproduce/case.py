"""One difference between two builds, and the parts of the contents that it is in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

from pipeline.engine.job import Circumstances
from pipeline.reproduce.difference import Difference, Side

_CONTEXT = 48
_PIECES = 200
_PROGRAM = (b"\x7fELF", b"MZ")
_STRING = re.compile(rb"[\t\x20-\x7e]{6,}")
"""What strings(1) would show of a program, but for the shortest, which code is full of."""


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
    if one.startswith(_PROGRAM) and two.startswith(_PROGRAM):
        strings = _strings(one, two)
        if any(strings):
            yield strings
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


def _strings(one: bytes, two: bytes) -> tuple[bytes, bytes]:
    """The strings that only one of two programs has, a line each.

    A longer string moves all that follows it, and with it most addresses in the code: there, next to nothing
    of what differs says why.
    """
    left, right = ({match[0]: None for match in _STRING.finditer(data)} for data in (one, two))
    return b"\n".join(s for s in left if s not in right), b"\n".join(s for s in right if s not in left)


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
