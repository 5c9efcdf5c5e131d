"""The course of a bisection: git chooses commits, a court tries them, and what it found is kept.

A later run takes up from the record: git is led along the same road again, which takes it no time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pipeline import files, log, records
from pipeline.errors import FailureError
from pipeline.git.history import Change, History
from pipeline.nightly import resolve
from pipeline.nightly.trial import Court, Trial, Verdict
from pipeline.release import Release

RECORD = "bisect.json"


class Search(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A bisection as far as it has come; ``bisect.json``. ``culprit`` is the first bad commit."""

    release: str
    question: str
    good: str
    bad: str
    trials: tuple[Trial, ...] = ()
    culprit: Change | None = None

    def of(self, commit: str) -> Trial | None:
        """The trial of a commit, where there was one."""
        return next((trial for trial in self.trials if trial.commit == commit), None)


class EndsError(FailureError):
    """The commits at the ends are not good and bad, as they were said to be."""


@dataclass(frozen=True)
class Found:
    """How a bisection ended: the trial of the first bad commit, and that of the one before it."""

    culprit: Change
    bad: Trial
    good: Trial
    search: Search
    folder: Path

    def __str__(self) -> str:
        builds = len(self.search.trials)
        skipped = sum(trial.verdict is Verdict.SKIP for trial in self.search.trials)
        return "\n".join(
            [
                f"First bad commit: {self.culprit}, {self.culprit.date}",
                f"  {self.bad.why}",
                f"  Its log: {self.folder / self.bad.log}",
                f"  The log of {self.good.commit[:12]}, which is good: {self.folder / self.good.log}",
                f"  {builds} builds, {skipped} of them skipped",
            ]
        )


def kept(folder: Path, fresh: Search) -> Search:
    """Read what an earlier run has noted in a bisection's folder, or begin with ``fresh``."""
    try:
        return records.decode((folder / RECORD).read_bytes(), Search)
    except FileNotFoundError:
        return fresh
    except (OSError, records.RecordError) as e:
        log.warn(f"{folder / RECORD} is damaged: {e}. The bisection begins anew.")
        return fresh


@dataclass
class Course:
    """A bisection on its way; ``search`` is what is known, and in the file RECORD of ``folder``.

    ``upstream`` is a repository of its own, and ``court`` tries the commits of ``release``.
    """

    release: Release
    upstream: History
    folder: Path
    search: Search
    court: Court

    def go(self) -> Found:
        """Let git choose commits and tell it what they are, until one is left.

        Raises EndsError, FailureError where the answer is not one commit, and HostError.
        """
        search = self.search
        # It asks for a HEAD, though none is checked out.
        self.upstream.git.call("update-ref", "--no-deref", "HEAD", search.bad, folder=self.upstream.folder)
        self._git("start", "--no-checkout", search.bad, search.good)
        left = self._left()
        most = math.ceil(math.log2(len(left))) + 1
        log.info(f"{len(left)} commits between good and bad: {most} builds at the most")
        while len(left) > 1 and not self._stuck(left):
            self._git(self._try(self.upstream.resolve("BISECT_HEAD")).verdict)
            left = self._left()
        return self._conclude(left)

    def _git(self, word: str, *more: str) -> None:
        # It also ends with 2 where all that is left was skipped, which `_stuck` sees.
        self.upstream.git.call("bisect", word, *more, folder=self.upstream.folder, expect=(0, 2))

    def _left(self) -> list[str]:
        """The commits of which one is the first bad one; the first of them is known to be bad."""
        said = self.upstream.git.call(
            "rev-list", "refs/bisect/bad", "--not", "--glob=refs/bisect/good-*", folder=self.upstream.folder
        )
        return said.split()

    def _stuck(self, left: Sequence[str]) -> bool:
        """Whether all that could be tried still was, and could not be judged."""
        trials = [self.search.of(commit) for commit in left[1:]]
        return all(trial is not None and trial.verdict is Verdict.SKIP for trial in trials)

    def _try(self, commit: str) -> Trial:
        found = self.search.of(commit)
        if found is None:
            number = len(self.search.trials) + 1
            with log.step(f"Build {number}: {self.upstream.change(commit)}"):
                lock = resolve.lock(self.release, self.upstream, commit, str(self.release.branch))
                found = self.court.judge(lock)
            log.info(f"{commit[:12]} is {found.verdict}: {found.why}")
            self._note(trials=(*self.search.trials, found))
        return found

    def _note(self, **changes: object) -> None:
        self.search = msgspec.structs.replace(self.search, **changes)
        files.write_bytes(self.folder / RECORD, records.encode(self.search))

    def _conclude(self, left: Sequence[str]) -> Found:
        """Name the first bad commit; both ends were only said to be what they are, and are tried now."""
        if len(left) > 1:
            several = "\n".join(str(self.upstream.change(commit)) for commit in left)
            raise FailureError(
                "The first bad commit is one of several, as the others cannot be judged.", hint=several
            )
        bad = self._expect(left[0], Verdict.BAD)
        good = self._expect(self._before(left[0]), Verdict.GOOD)
        culprit = self.upstream.change(left[0])
        self._note(culprit=culprit)
        return Found(culprit, bad, good, self.search, self.folder)

    def _before(self, culprit: str) -> str:
        """The good commit to compare with: the one before it, or the newest that was tried."""
        parent = self.upstream.resolve(f"{culprit}^")
        tried = [t.commit for t in self.search.trials if t.verdict is Verdict.GOOD]
        if parent in tried or parent == self.search.good or not tried:
            return parent
        return tried[-1]

    def _expect(self, commit: str, verdict: Verdict) -> Trial:
        trial = self._try(commit)
        if trial.verdict is not verdict:
            raise EndsError(
                f"{commit[:12]} is not {verdict}, so there is nothing to find: it is {trial.verdict}.",
                hint=f"{trial.why}\nLog: {self.folder / trial.log}",
            )
        return trial
