"""Evidence: a small record that a step was done on exactly these package bytes, and how it ended.

``<build folder>/evidence/<kind>.json``. What ships packages asks for it: see `require`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec

from pipeline import files, records
from pipeline.errors import FailureError
from pipeline.source import FileName, Sha256

_MAX_SIZE = 1 << 20


class UnprovenError(FailureError):
    """Packages lack passing evidence for exactly their bytes."""


class ProofFailedError(FailureError):
    """Packages do not pass a proof."""


@dataclass(frozen=True)
class Outcome:
    """How a proof ended, and what it used: names and versions."""

    passed: bool
    summary: str
    tools: dict[str, str]


class Kind(StrEnum):
    """The steps that give evidence; the name of each is also the command that makes it."""

    CHECK = "check"
    REPRODUCE = "reproduce"
    SMOKE = "smoke"


class Evidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """That a step was done on these packages.

    ``packages`` maps file names to SHA-256, ``tools`` what was used to its version. ``finished`` is the time
    in UTC, as RFC 3339 writes it. ``key`` is the hash of all that went into the step: with the same key, it
    need not be done again.
    """

    kind: Kind
    packages: Annotated[dict[FileName, Sha256], msgspec.Meta(min_length=1)]
    passed: bool
    summary: Annotated[str, msgspec.Meta(max_length=10_000)]
    tools: dict[str, str]
    finished: Annotated[datetime, msgspec.Meta(tz=True)]
    key: Sha256

    def covers(self, packages: Mapping[str, str]) -> bool:
        """Whether it speaks of these bytes, given as file names and SHA-256; it may speak of more."""
        return packages.items() <= self.packages.items()


def now() -> datetime:
    """The time, in UTC and whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def path(folder: Path, kind: Kind) -> Path:
    """Where a build folder's evidence of that kind is or would be."""
    return folder / "evidence" / f"{kind}.json"


def write(folder: Path, evidence: Evidence) -> Path:
    """Write evidence to its place below a build folder, and return that."""
    target = path(folder, evidence.kind)
    files.write_bytes(target, records.encode(evidence))
    return target


def read(folder: Path, kind: Kind) -> Evidence | None:
    """Read a build folder's evidence of that kind; None where there is none.

    Raises UnprovenError naming a file that is no such evidence.
    """
    return read_file(path(folder, kind), kind)


def read_file(file: Path, kind: Kind) -> Evidence | None:
    """Read evidence of that kind that lies anywhere; see `read`."""
    try:
        with file.open("rb") as stream:
            data = stream.read(_MAX_SIZE + 1)
    except FileNotFoundError:
        return None
    return decode(file, data, kind)


def decode(file: Path, data: bytes, kind: Kind) -> Evidence:
    """Read evidence that was found in ``file``; raises UnprovenError."""
    if len(data) > _MAX_SIZE:
        raise UnprovenError(f"{file} is larger than any evidence.")
    try:
        evidence = records.decode(data, Evidence)
    except records.RecordError as e:
        raise UnprovenError(f"{file} is damaged: {e}.", hint=f"./inv {kind} makes it again.") from e
    if evidence.kind is not kind:
        raise UnprovenError(f"{file} is the evidence of another step: {evidence.kind}.")
    return evidence


def require(
    folder: Path, packages: Mapping[str, Sha256], kinds: Iterable[Kind] = tuple(Kind)
) -> tuple[Evidence, ...]:
    """Return the evidence of these package bytes; ``packages`` maps file names to SHA-256.

    Raises UnprovenError naming all that is missing, is about other bytes, or did not pass.
    """
    found: list[Evidence] = []
    problems: list[str] = []
    for kind in kinds:
        try:
            found.append(find(folder, packages, kind))
        except UnprovenError as e:
            problems.append(e.message)
    if problems:
        raise UnprovenError(
            f"{', '.join(packages)}: not proven. {' '.join(problems)}",
            hint="./inv check, ./inv reproduce and ./inv smoke make evidence.",
        )
    return tuple(found)


def find(folder: Path, packages: Mapping[str, Sha256], kind: Kind) -> Evidence:
    """Return the evidence of one kind of these package bytes, see require; raises UnprovenError."""
    evidence = read(folder, kind)
    if evidence is None:
        raise UnprovenError(f"There is no evidence of {kind}.")
    if not evidence.covers(packages):
        other = [name for name, sha256 in packages.items() if evidence.packages.get(name) != sha256]
        raise UnprovenError(f"The evidence of {kind} is about other bytes of {', '.join(other)}.")
    if not evidence.passed:
        raise UnprovenError(f"{kind.capitalize()} failed: {evidence.summary}.")
    return evidence
