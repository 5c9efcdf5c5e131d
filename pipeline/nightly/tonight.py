"""A night on its way: what is upstream's newest commit, and is it any good?"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import msgspec

from pipeline import build as builds
from pipeline import files, log, package, records
from pipeline.build import Build
from pipeline.diff.compare import compare
from pipeline.diff.render import render
from pipeline.errors import ExitStatus, HostError, PipelineError
from pipeline.evidence import Kind
from pipeline.git import history as histories
from pipeline.git.history import Change, History, Tip
from pipeline.nightly import commands, explain, figures, resolve
from pipeline.nightly.commands import HOST, Commands
from pipeline.nightly.night import Night, Outcome, Stage, Trouble
from pipeline.nightly.prune import LAST_GOOD
from pipeline.nightly.trial import Question
from pipeline.nightly.watch import DIFFERENCE, RECORD, Watch
from pipeline.release import Release

_GIB = 1 << 30
_DAY = timedelta(hours=20)
"""A day, for nights that begin a little earlier or later than the one before."""
_LOOK_BACK = 100
"""How many nights are looked at for what was done within a day."""


@dataclass
class Tonight:
    """One night on its way; `night` is the record so far, and in the history."""

    watch: Watch
    night: Night
    folder: Path = field(init=False)
    commands: Commands = field(init=False)

    def __post_init__(self) -> None:
        self.folder = self.watch.night_folder(self.night.number)
        self.commands = Commands(self.watch.program, self.watch.settings, self.folder)

    @property
    def release(self) -> Release:
        """The release that is built."""
        return self.watch.release

    def go(self) -> Night:
        """Do the night; raises PipelineError for what is not upstream's fault."""
        watch, settings = self.watch, self.watch.settings
        branch = watch.branch
        source = self.release.git[0]
        urls = histories.urls(settings.open_mirrors, source.urls)
        tip = histories.tip(settings.open_store, urls, branch)
        inputs = commands.inputs(settings, branch)
        before = next((n for n in watch.book.nights() if n.outcome.judges), None)
        if before is not None and (before.commit, before.inputs) == (tip.commit, inputs):
            note = (
                f"{branch} is still at {tip.commit[:12]}, which night {before.number} found {before.outcome}."
            )
            log.info(f"Nothing new: {note}")
            return self._note(outcome=Outcome.NOTHING, note=note, inputs=inputs, finished=watch.clock())
        self._room()
        with histories.opened(settings.open_store, source.urls[0]) as history:
            with log.step(f"Upstream's history of {branch}"):
                history.update(tip.url, branch, tip.commit)
            self._resolve(history, tip, branch, inputs)
        # Others may use it meanwhile: a night takes hours.
        return self._judge()

    def _room(self) -> None:
        """See that there is room for a build; raises HostError."""
        settings = self.watch.settings
        for folder in (settings.artifacts_folder, settings.open_store.root):
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            if free < settings.nightly.free * _GIB:
                raise HostError(
                    f"{folder} has {log.size(free)} left, and a night needs {settings.nightly.free:g} GiB.",
                    hint="Lower nightly.budget, or make room.",
                )

    def _resolve(self, history: History, tip: Tip, branch: str, inputs: str) -> None:
        good = self.watch.book.last(Outcome.GOOD)
        above, rewritten = 0, False
        changes: tuple[Change, ...] = ()
        if good is not None and good.lock is not None and good.lock.commit != tip.commit:
            above = good.lock.count
            rewritten = not history.is_ancestor(good.lock.commit, tip.commit)
            changes = tuple(history.between(good.lock.commit, tip.commit))
            if rewritten:
                log.warn(f"Upstream has rewritten {branch}: {good.lock.commit[:12]} is no longer in it.")
        lock = resolve.lock(self.release, history, tip.commit, branch, above=above)
        if good is not None and good.lock is not None and good.lock.commit == tip.commit:
            lock = good.lock
        files.write_bytes(self.folder / builds.LOCK, records.encode(lock))
        self._note(
            lock=lock,
            inputs=inputs,
            rewritten=rewritten,
            changes=changes,
            last_good=None if good is None else good.commit,
        )
        log.info(
            f"{branch} is {lock.commit[:12]}: {lock.version}, {len(changes)} commits since the last good"
        )

    def _judge(self) -> Night:
        """Build it and do all steps on it, until one fails."""
        name = self.release.name
        lock = self.folder / builds.LOCK
        stages: dict[str, tuple[str, ...]] = {"build": ("build", name, "--lock", str(lock), "--ccache")}
        steps = [*self.watch.settings.nightly.steps, *([HOST] if self._host_is_due() else [])]
        stages |= {step: commands.words(step, name) for step in steps}
        built: Build | None = None
        for step, words in stages.items():
            stage = self._stage(step, words)
            if step == "build" and stage.passed:
                built = self._built()
                self._compare(built)
            self._note(stages=(*self.night.stages, stage), build_id=built and built.record.build_id)
            if not stage.passed:
                return self._failed(stage, built)
        assert built is not None
        built.verify()
        if self.watch.settings.nightly.publish:
            stage = self._stage("publish", ("publish", name, "--channel", "unstable"))
            self._note(stages=(*self.night.stages, stage), published=stage.passed)
            if not stage.passed:
                return self._host_failed(stage, built)
        files.replace_link(self.watch.folder / LAST_GOOD, built.folder.name)
        return self._finish(Outcome.GOOD, built)

    def _host_is_due(self) -> bool:
        """Whether the full tier is made tonight: once a day, however often nights are."""
        if not self.watch.host:
            return False
        since = self.night.started - _DAY
        others = self.watch.book.nights(limit=_LOOK_BACK)
        done = (n for n in others if any(stage.name == HOST for stage in n.stages))
        return not any(since < night.started <= self.night.started for night in done)

    def _compare(self, built: Build) -> None:
        """Note how the packages differ from the last good ones, while both are there."""
        good = self.watch.folder / LAST_GOOD
        if not good.is_symlink():
            return
        try:
            before = [package.read(path) for path in builds.read(good.resolve()).packages]
            after = [package.read(path) for path in built.packages]
        except PipelineError as e:
            log.warn(f"The packages could not be compared with the last good ones: {e.message}")
            return
        files.write_text(self.folder / DIFFERENCE, render(compare(before, after)) + "\n")

    def _built(self) -> Build:
        built = builds.newest(self.watch.settings.artifacts_folder, self.release.name)
        if builds.read_lock(built.folder) != self.night.lock:
            raise HostError(f"{built.folder} is not the build of this night.", hint="Did another one build?")
        return built

    def _failed(self, stage: Stage, built: Build | None) -> Night:
        if stage.status != ExitStatus.FAILED:
            return self._host_failed(stage, built)
        trouble = self._trouble(stage, built)
        suspects = self._suspects(trouble)
        night = self._finish(Outcome.RED, built, trouble=trouble, suspects=suspects, note=trouble.error)
        log.error(f"{stage.name}: {trouble.error}", _told(night, self.folder))
        return night

    def _suspects(self, trouble: Trouble) -> tuple[Change, ...]:
        """The commits since the last good night that touch the file of the trouble, or else its area."""
        good, lock = self.night.last_good, self.night.lock
        if not good or lock is None:
            return ()
        url = self.release.git[0].urls[0]
        with histories.opened(self.watch.settings.open_store, url) as history:
            found = (
                tuple(history.between(good, lock.commit, paths=[path]))
                for path in (trouble.file, trouble.area)
                if path
            )
            return next(filter(None, found), ())

    def _host_failed(self, stage: Stage, built: Build | None) -> Night:
        what = "took too long" if stage.status is None else f"ended with exit status {stage.status}"
        return self._finish(Outcome.INFRASTRUCTURE, built, note=f"{stage.name} {what}: {stage.summary}")

    def _trouble(self, stage: Stage, built: Build | None) -> Trouble:
        found: Trouble | None = None
        if built is not None and stage.name == Kind.CHECK:
            found = explain.of_check(built.folder)
        elif built is not None and stage.name == Kind.REPRODUCE:
            found = explain.of_reproduce(built.folder)
        elif built is not None and stage.name in (Kind.SMOKE, HOST):
            found = explain.of_smoke(built.folder, stage.name)
        if found is not None:
            return found
        whole = self.commands.compile_log(stage.log)
        return explain.first_error(stage.name, whole or self.folder / stage.log)

    def _stage(self, name: str, words: Sequence[str]) -> Stage:
        """Do a step, and once more where it fails: a flake passes on the same input, a fault does not."""
        start = time.monotonic()
        for attempt in (1, 2):
            self.watch.beat()
            log_name = f"{name}.log" if attempt == 1 else f"{name}.2.log"
            said = self.commands.run(name, words, f"{name} of {self.night.version}", log_name)
            if said.status in (ExitStatus.FINE, None):
                break
            if attempt == 1:
                log.warn(f"{name} failed; once more, to see whether it does so always.")
        seconds = round(time.monotonic() - start, 1)
        return Stage(
            name=name,
            status=said.status,
            seconds=seconds,
            log=log_name,
            attempts=attempt,
            summary=said.summary,
        )

    def _finish(
        self,
        outcome: Outcome,
        built: Build | None,
        *,
        trouble: Trouble | None = None,
        suspects: tuple[Change, ...] = (),
        note: str = "",
    ) -> Night:
        measured = figures.measure(self.night.stages, built)
        night = self._note(
            outcome=outcome,
            trouble=trouble,
            suspects=suspects,
            note=note,
            figures=measured,
            finished=self.watch.clock(),
        )
        for name in ("smoke", HOST):
            if built is not None and (built.folder / name).is_dir():
                shutil.copytree(built.folder / name, self.folder / name, dirs_exist_ok=True)
        for name in explain.NAMED:
            if built is not None and (built.folder / name).is_file():
                (self.folder / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(built.folder / name, self.folder / name)
        files.write_bytes(self.folder / RECORD, records.encode(night))
        return night

    def _note(self, **changes: object) -> Night:
        self.night = msgspec.structs.replace(self.night, **changes)
        self.watch.book.write(self.night)
        return self.night


def _told(night: Night, folder: Path) -> str:
    """What is said of a red night below its first error."""
    lines = []
    if night.trouble is not None and night.trouble.area:
        lines.append(f"Area: {night.trouble.area}")
    lines += [f"Suspect: {change}" for change in night.suspects[:5]]
    if not night.suspects:
        lines += [f"Since the last good: {change}" for change in night.changes[:5]]
    if night.last_good and night.lock and night.trouble:
        lines.append(
            f"Find the commit: ./inv bisect --good {night.last_good[:12]} --bad {night.lock.commit[:12]} "
            f"--check {Question(night.trouble.step, night.trouble.case)}"
        )
    return "\n".join([*lines, f"All that is known: {folder}"])
