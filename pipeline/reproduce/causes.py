"""What to say where two builds differ: the known cause of each difference, and its remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec

from pipeline.definition import read_toml
from pipeline.engine.job import Circumstances
from pipeline.reproduce.case import Case
from pipeline.reproduce.detect import DETECTORS
from pipeline.reproduce.difference import Difference, compare

_CATALOGUE = Path(__file__).with_name("causes.toml")


class Cause(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One reason for builds to differ; ``files`` is a regular expression for the paths it can be in."""

    code: str
    title: str
    detector: str
    remedy: str
    files: str = ""

    def __post_init__(self) -> None:
        if self.detector not in DETECTORS:
            raise ValueError(f"there is no detector {self.detector!r}")

    def explains(self, case: Case) -> bool:
        """Whether a difference shows this cause."""
        return re.match(self.files, case.difference.path) is not None and DETECTORS[self.detector](case)


class _Catalogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    causes: tuple[Cause, ...]


UNKNOWN = Cause(
    code="unknown",
    title="no cause that the catalogue knows",
    detector="gone",
    remedy="diffoscope's report shows the bytes; a cause that you find belongs into causes.toml.",
)


@dataclass(frozen=True)
class Explanation:
    """A difference and its cause."""

    difference: Difference
    cause: Cause

    def __str__(self) -> str:
        where = f"{self.difference.package}: {self.difference.path}"
        return f"{where}: {self.cause.title} ({self.cause.code}). {self.cause.remedy}"


@cache
def catalogue() -> tuple[Cause, ...]:
    """All known causes, in the order in which they are tried."""
    return read_toml(_CATALOGUE, _Catalogue).causes


def explain(case: Case) -> Explanation:
    """Find the cause of a difference; one that nothing explains is unknown."""
    known = (cause for cause in catalogue() if cause.explains(case))
    return Explanation(case.difference, next(known, UNKNOWN))


def explain_packages(
    pairs: Iterable[tuple[Path, Path]], first: Circumstances, second: Circumstances, jobs: tuple[int, int]
) -> list[Explanation]:
    """Explain every difference between packages of two builds; raises PackageError."""
    return [
        explain(Case(difference, first, second, jobs))
        for one, two in pairs
        for difference in compare(one, two)
    ]
