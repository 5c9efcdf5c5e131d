"""What is known of one night: the record that the history keeps and the notification hook gets."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from pipeline.errors import ExitStatus
from pipeline.git.history import Change
from pipeline.release import BranchLock


class Outcome(StrEnum):
    """How a night ended."""

    RUNNING = "running"
    """It goes on, or was killed and nobody has looked since."""
    GOOD = "good"
    RED = "red"
    """Upstream's fault, or the recipe's: the same step failed twice."""
    NOTHING = "nothing new"
    INFRASTRUCTURE = "infrastructure"
    """This host's or an outside service's fault; says nothing of the commit."""
    KILLED = "killed"

    @property
    def status(self) -> ExitStatus:
        """The exit status of ``./inv nightly``."""
        return {
            Outcome.GOOD: ExitStatus.FINE,
            Outcome.NOTHING: ExitStatus.FINE,
            Outcome.RED: ExitStatus.FAILED,
        }.get(self, ExitStatus.HOST)

    @property
    def sign(self) -> str:
        """A sign for it, for those who see no colours; none where there is nothing to see."""
        return {
            Outcome.RUNNING: "…",
            Outcome.GOOD: "✓",
            Outcome.RED: "✗",
            Outcome.INFRASTRUCTURE: "!",
            Outcome.KILLED: "!",
        }.get(self, "")

    @property
    def judges(self) -> bool:
        """Whether it says something of the commit, so that the same need not be built again."""
        return self in (Outcome.GOOD, Outcome.RED)


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One step of a night. ``status`` is the command's exit status, None where its time was up.

    ``log`` is its file's name in the night's folder. ``attempts`` is 2 where it was done again; passed
    then, it is a flake.
    """

    name: str
    status: int | None
    seconds: float
    log: str
    attempts: int = 1
    summary: str = ""

    @property
    def passed(self) -> bool:
        """Whether it ended well, at last."""
        return self.status == 0

    @property
    def flaky(self) -> bool:
        """Whether it failed first, and passed on the same input."""
        return self.passed and self.attempts > 1


class Trouble(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Why a night is red.

    ``line`` counts from 1 in ``log``; ``file`` and ``area`` are upstream's paths. ``case`` is which check of
    the step it was, where the step has several.
    """

    step: str
    error: str
    log: str = ""
    line: int = 0
    file: str = ""
    area: str = ""
    case: str = ""


class Figures(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the trends are made of; seconds, bytes, and None where it was not found out.

    ``ccache`` is the share of the compiled files that ccache had, from 0 to 1.
    """

    build_seconds: float | None = None
    boot_seconds: float | None = None
    package_bytes: int | None = None
    warnings: int | None = None
    reproducible: bool | None = None
    flakes: int = 0
    ccache: float | None = None


class Night(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A night. ``number`` counts up; times are in UTC, and may jump as the host's clock does.

    ``inputs`` is a hash of all but the commit that decides the outcome: pipeline, image, settings.
    ``changes`` are the commits since the last good night, newest first; ``suspects`` those of them that
    touch the file or area of the trouble, and ``culprit`` the one that a bisection found. ``rewritten``
    says that upstream threw away the commit of the night before.
    """

    number: int
    release: str
    started: datetime
    finished: datetime | None = None
    outcome: Outcome = Outcome.RUNNING
    note: str = ""
    inputs: str = ""
    lock: BranchLock | None = None
    build_id: str | None = None
    published: bool = False
    rewritten: bool = False
    last_good: str | None = None
    stages: tuple[Stage, ...] = ()
    trouble: Trouble | None = None
    changes: tuple[Change, ...] = ()
    suspects: tuple[Change, ...] = ()
    culprit: Change | None = None
    figures: Figures = Figures()

    @property
    def commit(self) -> str | None:
        """The commit that was built."""
        return None if self.lock is None else self.lock.commit

    @property
    def version(self) -> str:
        """What the packages were to be called."""
        return "" if self.lock is None else self.lock.version
