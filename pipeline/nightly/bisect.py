"""Which commit broke it? `git bisect` over upstream's history, with the pipeline's own steps.

git bisect chooses the commits, in a repository of the bisection's own. What each trial found is in a record
from which a later run takes up: git is led along the same road again, which takes it no time.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from pipeline import files, log, records
from pipeline import release as releases
from pipeline.errors import FailureError, UsageError
from pipeline.evidence import Kind
from pipeline.git import history as histories
from pipeline.git.history import Change, History
from pipeline.nightly import commands, narrow, resolve
from pipeline.nightly.book import FILE, Book
from pipeline.nightly.commands import PROGRAM
from pipeline.nightly.night import Night, Outcome
from pipeline.nightly.trial import Court, Question, Trial, Verdict
from pipeline.release import Release
from pipeline.settings import Settings

BISECTS = "bisects"
RECORD = "bisect.json"
_CLONE = "upstream.git"


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


@dataclass(frozen=True)
class Bisection:
    """What a bisection needs: ``good`` and ``bad`` are commits as git names them.

    ``without`` are features that are left out, and ``over`` is a build that has them, for boots.
    """

    settings: Settings
    release: Release
    question: Question
    good: str
    bad: str
    without: str = ""
    program: Sequence[str] = PROGRAM
    over: Path | None = None

    @classmethod
    def of(cls, night: Night, settings: Settings, release: Release, program: Sequence[str]) -> Bisection:
        """The bisection that finds a red night's culprit; raises UsageError where there can be none."""
        trouble = night.trouble
        if trouble is None or night.commit is None or night.last_good is None:
            raise UsageError(f"Night {night.number} is not red after a good one.")
        question = Question(trouble.step, trouble.case)
        return cls(settings, release, question, night.last_good, night.commit, "", program)

    @classmethod
    def read(
        cls, settings: Settings, name: str, good: str, bad: str, check: str, without: str = ""
    ) -> Bisection:
        """The bisection that was asked for; what is empty is the last red night's. Raises UsageError."""
        found = releases.read(name or settings.nightly.release)
        if found.branch is None:
            raise UsageError(
                f"Release {found.name} follows no branch.", hint="--release names one that does."
            )
        if good and bad and check:
            return cls(settings, found, Question.parse(check), good, bad, without)
        night = Book(settings.artifacts_folder / found.name / FILE, found.name).last(Outcome.RED)
        if night is None:
            raise UsageError("No night was red.", hint="--good, --bad and --check say what to bisect.")
        last = cls.of(night, settings, found, PROGRAM)
        question = Question.parse(check) if check else last.question
        return cls(settings, found, question, good or last.good, bad or last.bad, without)

    @property
    def folder(self) -> Path:
        """Where the release's bisections are."""
        return self.settings.artifacts_folder / self.release.name / BISECTS

    def run(self) -> Found:
        """Find the first bad commit, by builds of the hypervisor alone where nothing else can matter.

        Raises UsageError for commits that cannot be bisected, FailureError where the answer is none, and
        HostError where this host fails; the same again goes on from there.
        """
        with histories.opened(self.settings.open_store, self.release.git[0].urls[0]) as history:
            good, bad = self._ends(history)
            narrowed = self._narrowed(history, good, bad)
        if narrowed is not None:
            log.info("Only the hypervisor was changed: it is built alone.")
            try:
                return narrowed._search(good, bad)
            except EndsError as e:
                log.warn(f"{e.message} Not without the rest, at least: everything is built.")
        return self._search(good, bad)

    def _narrowed(self, history: History, good: str, bad: str) -> Bisection | None:
        """The same with the hypervisor alone; None where something else was changed, or is asked for.

        A boot takes the rest from the good commit's build, and needs that to be there.
        """
        boots = self.question.step == Kind.SMOKE
        if self.without or self.question.step == Kind.CHECK or not narrow.possible(self.release):
            return None
        over = narrow.whole(self.settings.artifacts_folder / self.release.name, good) if boots else None
        if (boots and over is None) or not narrow.suffices(history.touched(good, bad)):
            return None
        return replace(self, without=",".join(narrow.LEFT_OUT), over=over)

    def _search(self, good: str, bad: str) -> Found:
        store, url = self.settings.open_store, self.release.git[0].urls[0]
        key = commands.inputs(self.settings, str(self.question), good, bad, self.without)
        folder = self.folder / hashlib.sha256(key.encode()).hexdigest()[:12]
        with commands.alone(folder, "bisect"):
            with histories.opened(store, url) as history:
                shutil.rmtree(folder / _CLONE, ignore_errors=True)
                clone = history.clone(folder / _CLONE)
            fresh = Search(release=self.release.name, question=str(self.question), good=good, bad=bad)
            with _removed(clone) as repository:
                return _Run(self, repository, folder, _kept(folder, fresh)).go()

    def _ends(self, history: History) -> tuple[str, str]:
        """Return both commits' ids, asking upstream where one is not here yet."""
        try:
            good, bad = history.resolve(self.good), history.resolve(self.bad)
        except UsageError:
            urls = histories.urls(self.settings.open_mirrors, self.release.git[0].urls)
            branch = str(self.release.branch)
            tip = histories.tip(self.settings.open_store, urls, branch)
            with log.step(f"Upstream's history of {branch}"):
                history.update(tip.url, branch, tip.commit)
            good, bad = history.resolve(self.good), history.resolve(self.bad)
        if good == bad or not history.is_ancestor(good, bad):
            raise UsageError(
                f"{self.good} does not lead to {self.bad}.",
                hint="--good is an older commit, from which --bad was made by more commits.",
            )
        return good, bad


def _kept(folder: Path, fresh: Search) -> Search:
    try:
        return records.decode((folder / RECORD).read_bytes(), Search)
    except FileNotFoundError:
        return fresh
    except (OSError, records.RecordError) as e:
        log.warn(f"{folder / RECORD} is damaged: {e}. The bisection begins anew.")
        return fresh


@contextlib.contextmanager
def _removed(history: History) -> Iterator[History]:
    """Remove the bisection's repository afterwards; it is made in no time."""
    try:
        yield history
    finally:
        shutil.rmtree(history.folder, ignore_errors=True)


@dataclass
class _Run:
    """A bisection on its way; ``search`` is what is known, and on disk."""

    bisection: Bisection
    upstream: History
    folder: Path
    search: Search
    court: Court = field(init=False)

    def __post_init__(self) -> None:
        asked = self.bisection
        source = asked.release.git[0]
        # All commits are here: none is asked of upstream, which may have thrown some away.
        url, rewrites = source.urls[0], asked.settings.mirrors.rewrites
        here = {url: (self.upstream.folder.as_uri(), *rewrites.get(url, ()))}
        mirrors = msgspec.structs.replace(asked.settings.mirrors, rewrites={**rewrites, **here})
        settings = msgspec.structs.replace(asked.settings, mirrors=mirrors)
        self.court = Court(
            asked.program,
            settings,
            asked.release.name,
            asked.question,
            self.folder,
            asked.without,
            asked.over,
        )

    def go(self) -> Found:
        """Let git choose commits and tell it what they are, until one is left."""
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
            asked = self.bisection
            number = len(self.search.trials) + 1
            with log.step(f"Build {number}: {self.upstream.change(commit)}"):
                lock = resolve.lock(asked.release, self.upstream, commit, str(asked.release.branch))
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
