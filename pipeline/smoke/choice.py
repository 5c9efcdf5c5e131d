"""Which cases a command asks for: a whole suite, or some of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.smoke.attach import Terminal
from pipeline.smoke.full.tier import chosen
from pipeline.smoke.guests.suite import SAYS, own
from pipeline.smoke.plan import Suite
from pipeline.smoke.suite import fast
from pipeline.smoke.xtf.suite import xtf

SUITES = FAST, FULL, XTF, GUESTS = "fast", "full", "xtf", "guests"
_OWNERS = {"--xtf": XTF, "--known": XTF, "--guest": GUESTS, "--says": GUESTS}
SOME, SOME_ON_HOST = "smoke-some", "host-some"
"""The folders for results of some cases, of the fast tier and of the full one."""


@dataclass(frozen=True)
class Choice:
    """The words of a command: a suite, cases of it, and what belongs to one suite alone.

    That is XTF's folder, and lists for it; and the files of guests, and what shows that one is up.
    """

    suite: str
    cases: tuple[str, ...] = ()
    xtf: str = ""
    lists: tuple[str, ...] = ()
    attach: bool = False
    guests: tuple[str, ...] = ()
    says: str = ""

    @property
    def is_evidence(self) -> bool:
        """Whether it is all that packages are judged by."""
        return self.suite == FAST and not self.cases

    @property
    def on_host(self) -> bool:
        """Whether it is made on a whole host. Raises UsageError as `check` does."""
        self.check()
        return self.suite == FULL

    def check(self) -> None:
        """Raise UsageError for a suite that there is not, and for options that belong to another one."""
        if self.suite not in SUITES:
            raise UsageError(f"There is no suite {self.suite!r}.", hint=f"Suites: {', '.join(SUITES)}.")
        for option, value in self._options:
            if value and self.suite != _OWNERS[option]:
                raise UsageError(f"{option} belongs to --suite {_OWNERS[option]}.")

    @property
    def folder(self) -> str:
        """The name of the folder for its results."""
        return {XTF: "smoke-xtf", GUESTS: "smoke-guests"}.get(self.suite, SOME)

    @property
    def words(self) -> list[str]:
        """The options of a command that makes other cases of the same suite."""
        words = ["--suite", self.suite] if self.suite != FAST else []
        return words + [word for option, value in self._options if value for word in (option, value)]

    @property
    def _options(self) -> list[tuple[str, str]]:
        """The options that belong to one suite, and what is said of each."""
        known = [("--known", path) for path in self.lists]
        return [
            ("--xtf", self.xtf),
            *known,
            *(("--guest", path) for path in self.guests),
            ("--says", self.says),
        ]

    def open(self) -> Suite:
        """Return the cases. Raises UsageError for what there is not, or does not fit together."""
        if self.on_host:
            raise UsageError("The cases of --suite full are made on a whole host.")
        if self.suite == FAST:
            return fast(self.cases)
        if self.suite == GUESTS:
            if not self.guests:
                raise UsageError("--suite guests needs --guest FILE, the configuration of a guest.")
            return own([Path(path).expanduser() for path in self.guests], self.says or SAYS, self.cases)
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
