"""What a check has to say, and which of it a release expects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase

import msgspec

from pipeline.package import Package
from pipeline.release import Accepted
from pipeline.source import Sha256


class Level(StrEnum):
    """How bad a finding is: an error fails the check, a warning is printed."""

    ERROR = "error"
    WARNING = "warning"


class Finding(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One thing that is not as it should be; ``accepted`` is the release's reason to live with it."""

    code: str
    level: Level
    package: str
    path: str
    message: str
    accepted: str = ""

    def __str__(self) -> str:
        where = f"{self.package}: {self.path}" if self.path else self.package
        return f"{self.level} {self.code}: {where}: {self.message}"


class CheckRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The findings on exactly these packages; ``check-findings.json``."""

    packages: dict[str, Sha256]
    findings: tuple[Finding, ...]

    @property
    def open(self) -> tuple[Finding, ...]:
        """The findings that nobody accepted."""
        return tuple(finding for finding in self.findings if not finding.accepted)

    @property
    def passed(self) -> bool:
        """Whether there is no error among the open findings."""
        return not any(finding.level is Level.ERROR for finding in self.open)

    @property
    def summary(self) -> str:
        """The findings counted, for one line of a table."""
        count = {level: sum(f.level is level for f in self.open) for level in Level}
        said = [f"{n} {level}{'s' if n != 1 else ''}" for level, n in count.items() if n]
        accepted = len(self.findings) - len(self.open)
        return ", ".join(said or ["nothing found"]) + (f" ({accepted} accepted)" if accepted else "")


def error(code: str, package: str, path: str, message: str) -> Finding:
    """Make a finding that fails the check."""
    return Finding(code=code, level=Level.ERROR, package=package, path=path, message=message)


def warning(code: str, package: str, path: str, message: str) -> Finding:
    """Make a finding that is only printed."""
    return Finding(code=code, level=Level.WARNING, package=package, path=path, message=message)


def accept(
    findings: Sequence[Finding],
    accepted: Sequence[Accepted],
    packages: Sequence[Package],
    *,
    whole: bool,
) -> Iterator[Finding]:
    """Yield the findings with the reasons of those that are accepted, and a warning for each idle reason.

    Unless ``whole``, features are left out: what is said of a file that is in no package is not idle then.
    """
    used: set[Accepted] = set()
    for finding in findings:
        reason = next((entry for entry in accepted if _matches(entry, finding.code, finding.path)), None)
        if reason is None:
            yield finding
            continue
        used.add(reason)
        yield msgspec.structs.replace(finding, accepted=reason.reason)
    for entry in accepted:
        there = any(fnmatchcase(path, entry.path) for package in packages for path in package.members)
        if entry not in used and (whole or there):
            where = ", ".join(package.name for package in packages)
            yield warning("idle", where, entry.path, f"{entry.code} is accepted here, but no longer found")


def _matches(entry: Accepted, code: str, path: str) -> bool:
    return entry.code == code and fnmatchcase(path, entry.path)
