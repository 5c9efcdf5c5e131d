"""Which commit broke it? `git bisect` over upstream's history, with the pipeline's own steps."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from pipeline import log
from pipeline import release as releases
from pipeline.errors import UsageError
from pipeline.evidence import Kind
from pipeline.git import history as histories
from pipeline.git.history import History
from pipeline.nightly import commands, narrow
from pipeline.nightly.book import FILE, Book
from pipeline.nightly.commands import HOST, PROGRAM
from pipeline.nightly.course import Course, EndsError, Found, Search, kept
from pipeline.nightly.night import Night, Outcome
from pipeline.nightly.trial import Court, Question
from pipeline.release import Release
from pipeline.settings import Settings

BISECTS = "bisects"
_CLONE = "upstream.git"


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
        if self.without or self.question.step in (Kind.CHECK, HOST) or not narrow.possible(self.release):
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
                court = self._court(repository, folder)
                return Course(self.release, repository, folder, kept(folder, fresh), court).go()

    def _court(self, upstream: History, folder: Path) -> Court:
        # All commits are here: none is asked of upstream, which may have thrown some away.
        url, rewrites = self.release.git[0].urls[0], self.settings.mirrors.rewrites
        here = {url: (upstream.folder.as_uri(), *rewrites.get(url, ()))}
        mirrors = msgspec.structs.replace(self.settings.mirrors, rewrites={**rewrites, **here})
        settings = msgspec.structs.replace(self.settings, mirrors=mirrors)
        return Court(
            self.program, settings, self.release.name, self.question, folder, self.without, self.over
        )

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


@contextlib.contextmanager
def _removed(history: History) -> Iterator[History]:
    """Remove the bisection's repository afterwards; it is made in no time."""
    try:
        yield history
    finally:
        shutil.rmtree(history.folder, ignore_errors=True)
