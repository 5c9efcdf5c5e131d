"""One commit on trial: does a step, or one check of it, pass on what is built of it?"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from pipeline import build as builds
from pipeline import files, records
from pipeline.build import LOCK, Build
from pipeline.check.findings import CheckRecord, Level
from pipeline.errors import ExitStatus, HostError, UsageError
from pipeline.evidence import Kind
from pipeline.nightly import commands as steps
from pipeline.nightly import explain
from pipeline.nightly.commands import COMPILE_LOG, HOST, Commands, Said
from pipeline.nightly.prune import forget
from pipeline.release import BranchLock
from pipeline.settings import Settings
from pipeline.smoke import results as smoke
from pipeline.smoke.choice import FAST, FULL, SOME, SOME_ON_HOST, Choice

BUILD = "build"
_WORK = "work"
_BOOTS = {Kind.SMOKE: SOME, HOST: SOME_ON_HOST}
"""The steps that boot, and the folders that they leave the results of one case in."""


class Verdict(StrEnum):
    """What a trial says of a commit; the names are `git bisect`'s own."""

    GOOD = "good"
    BAD = "bad"
    SKIP = "skip"
    """It cannot be told: it does not compile, or the check was not reached."""


@dataclass(frozen=True)
class Question:
    """What is asked of each commit: a step, and of ``check`` and boots perhaps one check only."""

    step: str
    case: str = ""

    @classmethod
    def parse(cls, text: str) -> Question:
        """Read ``STEP`` or ``STEP:CASE``; raises UsageError."""
        step, mark, case = text.partition(":")
        if step not in (BUILD, *Kind, HOST) or bool(mark) != bool(case) or (case and step not in _CASES):
            raise UsageError(
                f"There is no check {text!r}.",
                hint="build, check[:CODE], reproduce, smoke[:CASE] or host[:CASE]; see docs/nightlies.md.",
            )
        if case and step in _BOOTS:
            Choice(FULL if step == HOST else FAST, (case,)).validate()
        return cls(step, case)

    def __str__(self) -> str:
        return f"{self.step}:{self.case}" if self.case else self.step


class Trial(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How one commit did; ``log`` is a file below the bisection's folder, ``seconds`` what it took."""

    commit: str
    verdict: Verdict
    why: str
    log: str
    seconds: float


@dataclass(frozen=True)
class Court:
    """Tries commits. ``folder`` gets a folder a commit; ``without`` are features that are left out.

    ``over`` is a build that brings what those would, for boots.
    """

    program: Sequence[str]
    settings: Settings
    release: str
    question: Question
    folder: Path
    without: str = ""
    over: Path | None = None

    def judge(self, lock: BranchLock) -> Trial:
        """Build what a lock describes and ask the question.

        Raises HostError where this host or an outside service failed twice, which says nothing of the commit.
        """
        start = time.monotonic()
        folder = self.folder / lock.commit[:12]
        own = msgspec.structs.replace(self.settings, artifacts=str(folder / _WORK))
        commands = Commands(self.program, own, folder)
        files.write_bytes(folder / LOCK, records.encode(lock))
        verdict, why, log = self._ask(commands, lock)
        self._clear(folder / _WORK)
        seconds = round(time.monotonic() - start, 1)
        return Trial(
            commit=lock.commit, verdict=verdict, why=why, log=f"{folder.name}/{log}", seconds=seconds
        )

    def _ask(self, commands: Commands, lock: BranchLock) -> tuple[Verdict, str, str]:
        words = [BUILD, self.release, "--lock", str(commands.folder / LOCK), "--ccache"]
        words += ["--without", self.without] if self.without else []
        said, log = self._run(commands, BUILD, words, lock)
        if said.status != ExitStatus.FINE:
            whole = commands.compile_log(log)
            trouble = explain.first_error(BUILD, whole or commands.folder / log)
            verdict = Verdict.BAD if self.question.step == BUILD else Verdict.SKIP
            return verdict, trouble.error, whole.name if whole else log
        built = builds.newest(commands.settings.artifacts_folder, self.release)
        if self.question.step == BUILD:
            shutil.copyfile(built.folder / COMPILE_LOG, commands.folder / COMPILE_LOG)
            return Verdict.GOOD, "It builds.", COMPILE_LOG
        words = [*steps.words(self.question.step, self.release)]
        if self.question.step == Kind.SMOKE:
            words += ["--over", str(self.over)] if self.over else []
        if self.question.step in _BOOTS and self.question.case:
            words += ["--case", self.question.case]
        said, log = self._run(commands, self.question.step, words, lock)
        return self._read(commands.folder, built, said, log)

    def _read(self, folder: Path, built: Build, said: Said, log: str) -> tuple[Verdict, str, str]:
        """Take the step's own results into the folder, and the answer from there."""
        step = self.question.step
        results = built.folder / (_BOOTS.get(step, step) if self.question.case else step)
        if step in _BOOTS and results.is_dir():
            shutil.copytree(results, folder / step, dirs_exist_ok=True)
            log = _log_of(folder, step, self.question.case) or log
        if self.question.step == Kind.CHECK and (built.folder / explain.FINDINGS).is_file():
            shutil.copyfile(built.folder / explain.FINDINGS, folder / explain.FINDINGS)
            log = explain.FINDINGS
        if self.question.case:
            return *_CASES[step](folder / step, self.question.case), log
        verdict = Verdict.GOOD if said.status == ExitStatus.FINE else Verdict.BAD
        return verdict, said.summary, log

    def _run(self, commands: Commands, step: str, words: Sequence[str], lock: BranchLock) -> tuple[Said, str]:
        """Do a step; a host that failed gets one more chance, and so does a boot that did.

        A compile that failed would fail again: that is not done twice.
        """
        for attempt in (1, 2):
            log = f"{step}.log" if attempt == 1 else f"{step}.2.log"
            said = commands.run(step, words, f"{step} of {lock.version}", log)
            if said.status == ExitStatus.FINE or (said.status == ExitStatus.FAILED and step not in _BOOTS):
                break
        if said.status not in (ExitStatus.FINE, ExitStatus.FAILED):
            raise HostError(
                f"{step} of {lock.commit[:12]} says nothing of the commit: {said.summary}",
                hint=f"The same command goes on where this one stopped. Log: {commands.folder / log}",
            )
        return said, log

    def _clear(self, work: Path) -> None:
        """Remove a build, of which only the logs are of use now."""
        keys = {build.record.compile_key for build in builds.every(work / self.release)}
        shutil.rmtree(work, ignore_errors=True)
        for key in keys:
            forget(self.settings.open_store, [self.settings.artifacts_folder], key)


def _log_of(folder: Path, step: str, case: str) -> str:
    """The serial log of the machine that a case was made on, or of the boot; empty where there is none."""
    names = (f"{step}/{smoke.CASES}/{case}/{smoke.SERIAL}", f"{step}/{smoke.SERIAL}")
    return next((name for name in names if (folder / name).is_file()), "")


def _of_smoke(folder: Path, case: str) -> tuple[Verdict, str]:
    try:
        result = smoke.read(folder / smoke.JSON)
    except (OSError, msgspec.DecodeError):
        return Verdict.SKIP, "The boot left no results."
    found = next((check for check in result.cases if check.name == case), None)
    if found is None or found.verdict not in (smoke.Verdict.PASS, smoke.Verdict.FAIL):
        return Verdict.SKIP, f"{case} was not reached."
    verdict = Verdict.GOOD if found.verdict is smoke.Verdict.PASS else Verdict.BAD
    return verdict, f"{found.title}: {found.evidence}" if found.evidence else found.title


def _of_check(folder: Path, case: str) -> tuple[Verdict, str]:
    try:
        record = records.decode((folder.parent / explain.FINDINGS).read_bytes(), CheckRecord)
    except (OSError, records.RecordError):
        return Verdict.SKIP, "The check left no findings."
    found = next((f for f in record.open if f.code == case and f.level is Level.ERROR), None)
    return (Verdict.GOOD, f"No {case} is found.") if found is None else (Verdict.BAD, str(found))


_CASES: dict[str, Callable[[Path, str], tuple[Verdict, str]]] = {
    Kind.CHECK: _of_check,
    Kind.SMOKE: _of_smoke,
    HOST: _of_smoke,
}
