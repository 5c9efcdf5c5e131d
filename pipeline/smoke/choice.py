"""Which cases a command asks for: a whole suite, or some of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.smoke.attach import Terminal
from pipeline.smoke.full.tier import chosen
from pipeline.smoke.plan import Suite
from pipeline.smoke.suite import fast
from pipeline.smoke.xtf.suite import xtf

FAST, FULL, XTF = "fast", "full", "xtf"
SOME, SOME_ON_HOST = "smoke-some", "host-some"
"""The folders for results of some cases, of the fast tier and of the full one."""


@dataclass(frozen=True)
class Choice:
    """The words of a command: a suite, cases of it, and what belongs to XTF: its folder, lists for it."""

    suite: str
    cases: tuple[str, ...] = ()
    xtf: str = ""
    lists: tuple[str, ...] = ()
    attach: bool = False

    @property
    def is_evidence(self) -> bool:
        """Whether it is all that packages are judged by."""
        return self.suite == FAST and not self.cases

    @property
    def on_host(self) -> bool:
        """Whether it is made on a whole host. Raises UsageError for what does not belong to that."""
        if self.suite != FULL:
            return False
        if self.xtf or self.lists:
            raise UsageError("--xtf and --known do not belong to --suite full.")
        return True

    @property
    def folder(self) -> str:
        """The name of the folder for its results."""
        return "smoke-xtf" if self.suite == XTF else SOME

    @property
    def words(self) -> list[str]:
        """The options of a command that makes other cases of the same suite."""
        words = ["--suite", self.suite] if self.suite != FAST else []
        words += ["--xtf", self.xtf] if self.suite == XTF else []
        return words + [word for path in self.lists for word in ("--known", path)]

    def open(self) -> Suite:
        """Return the cases. Raises UsageError for what there is not, or does not fit together."""
        if self.suite not in (FAST, XTF):
            raise UsageError(f"There is no suite {self.suite!r}.", hint=f"Suites: {FAST}, {FULL}, {XTF}.")
        if self.suite == FAST:
            if self.xtf or self.lists:
                raise UsageError("--xtf and --known belong to --suite xtf.")
            return fast(self.cases)
        if not self.xtf:
            raise UsageError("--suite xtf needs --xtf DIR, the folder of a built Xen Test Framework.")
        lists = [Path(path).expanduser() for path in self.lists]
        return xtf(Path(self.xtf).expanduser(), self.cases, lists)

    def validate(self) -> None:
        """Raise UsageError for cases that there are not."""
        if self.on_host:
            chosen(self.cases)
        else:
            self.open()

    def terminal(self, suite: Suite | None = None) -> Terminal | None:
        """Return this program's terminal, where it is to be attached. Raises UsageError.

        A whole host has no suite: its cases are known to the full tier only.
        """
        if not self.attach:
            return None
        if len(self.cases) == 1 and suite is None:
            return Terminal.own(self.cases[0], shell=False)
        if len(self.cases) == 1 and suite is not None:
            # Words of XTF may stand for one test, too; and a case of the boot test brings others along.
            names = {case.name for case in (*suite.boot, *suite.guests)}
            if self.cases[0] in names or len(names) == 1:
                return Terminal.own(self.cases[0] if self.cases[0] in names else names.pop())
        raise UsageError("--attach needs one --case, whose machine it attaches to.")
