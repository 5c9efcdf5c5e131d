"""Which tests cannot succeed here, and why: the list in expected.toml, held against what came."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from pipeline.definition import read_toml
from pipeline.smoke.accelerator import Kind
from pipeline.smoke.xtf.catalog import Instance
from pipeline.smoke.xtf.outcome import Outcome

LIST = Path(__file__).with_name("expected.toml")

Series = Annotated[str, msgspec.Meta(pattern=r"^\d{1,3}\.\d{1,3}$")]
Pattern = Annotated[str, msgspec.Meta(pattern=r"^test-[A-Za-z0-9._+~*-]+$", max_length=200)]


@dataclass(frozen=True)
class Circumstances:
    """What an expectation may depend on: Xen's series, QEMU's version, and what runs the instructions."""

    xen: tuple[int, ...]
    qemu: tuple[int, ...]
    accelerator: Kind


class Expectation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """That tests end otherwise than with success, under some circumstances, for a reason.

    ``tests`` are full names (test-pv64-xsa-167), with ``*`` for any characters, without those in ``but``.
    ``since`` and ``before`` are series of Xen, ``qemu_before`` one of QEMU; what is not given is any.
    ``seconds`` is how long they are waited for, where they are known never to end.
    """

    tests: Annotated[tuple[Pattern, ...], msgspec.Meta(min_length=1)]
    but: tuple[Pattern, ...] = ()
    outcome: Outcome
    seconds: Annotated[int, msgspec.Meta(ge=5, le=600)] | None = None
    reason: Annotated[str, msgspec.Meta(min_length=10, max_length=1000)]
    accelerator: Kind | None = None
    since: Series | None = None
    before: Series | None = None
    qemu_before: Series | None = None

    def __post_init__(self) -> None:
        """Refuse what says nothing."""
        if self.outcome is Outcome.SUCCESS:
            raise ValueError("success is what is expected of all others")

    def holds(self, here: Circumstances) -> bool:
        """Whether it is about these circumstances."""
        return (
            self.accelerator in (None, here.accelerator)
            and (self.since is None or here.xen >= _numbers(self.since))
            and (self.before is None or here.xen < _numbers(self.before))
            and (self.qemu_before is None or here.qemu < _numbers(self.qemu_before))
        )

    def names(self, test: str) -> bool:
        """Whether it is about the test of that name."""
        named, left_out = (
            any(fnmatch.fnmatchcase(test, pattern) for pattern in patterns)
            for patterns in (self.tests, self.but)
        )
        return named and not left_out


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    expected: tuple[Expectation, ...] = ()


@dataclass(frozen=True)
class Expectations:
    """A list of them; of several about a test, the first counts."""

    entries: tuple[Expectation, ...]

    @classmethod
    def read(cls, paths: Sequence[Path] = (LIST,)) -> Expectations:
        """Read lists, the one that counts first first. Raises UsageError."""
        return cls(tuple(entry for path in paths for entry in read_toml(path, _File).expected))

    def under(self, here: Circumstances) -> Expectations:
        """Those that are about these circumstances."""
        return Expectations(tuple(entry for entry in self.entries if entry.holds(here)))

    def of(self, test: Instance) -> Expectation | None:
        """What is expected of a test other than success."""
        return next((entry for entry in self.entries if entry.names(str(test))), None)

    def stale(self, known: Iterable[Instance]) -> list[str]:
        """Return the names and patterns that are about none of the tests that there are."""
        names = [str(instance) for instance in known]
        patterns = [pattern for entry in self.entries for pattern in entry.tests]
        return [p for p in dict.fromkeys(patterns) if not fnmatch.filter(names, p)]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))
