"""Rebuilds a finished build under other circumstances, and compares the packages byte by byte."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from pipeline import files, log, provenance, records
from pipeline.build import Build, BuildRecord
from pipeline.engine.choice import EngineChoice
from pipeline.engine.job import Circumstances
from pipeline.errors import (
    CommandError,
    ExitStatus,
    FailureError,
    HostError,
    PipelineError,
    ToolMissingError,
    UsageError,
)
from pipeline.reproduce import report
from pipeline.reproduce.again import Request
from pipeline.reproduce.causes import Explanation, explain_packages
from pipeline.reproduce.variations import Applied, Surroundings, Variation, apply
from pipeline.run import run
from pipeline.scratch import scratch
from pipeline.steps import Steps
from pipeline.version import PROJECT

_NOT_BY_DOCKER = {Variation.ENGINE, Variation.USER, Variation.ORDER}
_COPIED = ("PKGBUILD.in", "containers", "package", "pipeline", "releases")


@dataclass(frozen=True)
class Reproduction:
    """How a rebuild ended; ``explanations`` is empty where every byte is the same."""

    applied: Applied
    engine: str
    seconds: float
    explanations: list[Explanation]

    @property
    def passed(self) -> bool:
        """Whether every byte was the same."""
        return not self.explanations

    def __str__(self) -> str:
        if self.passed:
            return f"same bytes; {self.applied}"
        causes = dict.fromkeys(explanation.cause.code for explanation in self.explanations)
        return f"other bytes in {len(self.explanations)} places ({', '.join(causes)}); {self.applied}"


def reproduce(steps: Steps, build: Build, wanted: Iterable[Variation], results: Path) -> Reproduction:
    """Build again what a build was made from; where bytes differ, ``results`` gets both packages and reports.

    ``steps`` are those of the build (see Steps.like), with the engine that may be used. Raises UsageError
    where the checkout no longer describes that build, and what building raises.
    """
    wanted = list(wanted)
    settings = steps.settings
    if steps.plan().build_id != build.record.build_id:
        raise UsageError(
            f"Release {build.record.release} is no longer what build {build.record.build_id} was made from.",
            hint=f"{_made_by(build)}./inv build {build.record.release} builds what it is now.",
        )
    with scratch(settings.open_store.root / "scratch", "again") as folder:
        engine, why = _engine(build.record.engine, wanted, EngineChoice.parse(settings.engine))
        around = Surroundings(
            engine=EngineChoice.parse(engine).open(settings.open_store.root / "scratch"),
            images=(steps.image(), steps.packaging_image()),
            folder=folder,
        )
        applied = apply((v for v in wanted if v is not Variation.ENGINE), settings.compile_jobs, around)
        applied = _with_engine(applied, wanted, why)
        if not applied.done:
            raise HostError(f"Nothing that was asked for can be varied here: {applied}.")
        log.info(str(applied))
        checkout = _checkout(folder, elsewhere=Variation.CHECKOUT in wanted)
        request = Request(
            settings=msgspec.structs.replace(
                settings,
                engine=engine,
                without=(),
                store=str(settings.open_store.root),
                trusted_keys=(),
            ),
            release=build.record.release,
            without=build.record.without,
            image=build.record.image,
            lock=steps.lock,
            series=steps.series,
            build_id=build.record.build_id,
            jobs=applied.jobs,
            circumstances=applied.circumstances,
            artifacts=folder / "artifacts",
        )
        record = _again(request, checkout, folder, results)
        second = Build(folder / "artifacts" / record.release / record.build_id, record)
        found = _compare(build, second, applied, settings.compile_jobs, results)
    return Reproduction(applied, engine, record.seconds, found)


def _made_by(build: Build) -> str:
    """A sentence on the commit of this project that made a build, where that is known."""
    path = build.folder / provenance.FILE
    commit = provenance.pipeline_commit(path.read_bytes()) if path.is_file() else ""
    return f"git checkout {commit[:12]} leads back to it; " if commit else ""


def _engine(first: str, wanted: list[Variation], choice: EngineChoice) -> tuple[str, str | None]:
    """Choose the second build's engine, and say why it is the first's where another was wanted."""
    if first == "docker" and _NOT_BY_DOCKER & set(wanted):
        return "bubblewrap", None
    if Variation.ENGINE not in wanted:
        return first, None
    asked_for = wanted == [Variation.ENGINE] or choice is EngineChoice.DOCKER
    if choice is EngineChoice.BUBBLEWRAP and not asked_for:
        return first, "the settings want bubblewrap"
    from pipeline.engine import docker

    if not docker.answers():
        return first, "no docker engine answers"
    return "docker", None


def _with_engine(applied: Applied, wanted: list[Variation], why: str | None) -> Applied:
    if Variation.ENGINE not in wanted:
        return applied
    if why is None:
        return replace(applied, done=(*applied.done, Variation.ENGINE))
    return replace(applied, missing=(*applied.missing, (Variation.ENGINE, why)))


def _checkout(folder: Path, *, elsewhere: bool) -> Path:
    """Copy what builds are made by to another path; what the recipe is rendered from must not know it."""
    if not elsewhere:
        return PROJECT
    target = folder / "ein anderer Ort" / "xen"
    target.mkdir(parents=True)
    for name in _COPIED:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / name)
    return target


def _again(request: Request, checkout: Path, folder: Path, results: Path) -> BuildRecord:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    asked, answered = folder / "request.json", folder / "record.json"
    asked.write_bytes(records.encode(request))
    argv = [sys.executable, "-m", "pipeline.reproduce.again", str(asked), str(answered)]
    with log.step("Building again"):
        result = run(argv, cwd=checkout, env=environment, on_line=log.info, expect=None)
    if result.status != 0:
        results.mkdir(parents=True, exist_ok=True)
        # It is about another second build.
        (results / report.EXPLANATION).unlink(missing_ok=True)
        kept = [shutil.copy(path, results) for path in request.artifacts.rglob("*.log")]
        hint = f"Its logs: {', '.join(map(str, kept))}" if kept else None
        raise _failure(result.status)("The second build failed, though the first did not.", hint)
    return records.decode(answered.read_bytes(), BuildRecord)


def _failure(status: int) -> type[PipelineError]:
    """The class of failure that a child's exit status stands for."""
    return {ExitStatus.FAILED: FailureError, ExitStatus.USAGE: UsageError}.get(ExitStatus(status), HostError)


def _compare(first: Build, second: Build, applied: Applied, jobs: int, results: Path) -> list[Explanation]:
    """Return what differs; both builds' packages and diffoscope's reports are kept then."""
    first.verify()
    names = [name for name in first.hashes if first.hashes[name] != second.hashes.get(name)]
    if results.exists():
        shutil.rmtree(results)
    if not names:
        return []
    kept = results / "second"
    kept.mkdir(parents=True)
    for name in names:
        if name in second.hashes:
            shutil.copyfile(second.folder / name, kept / name)
    pairs = [(first.folder / name, kept / name) for name in names if name in second.hashes]
    found = explain_packages(pairs, Circumstances(), applied.circumstances, (jobs, applied.jobs))
    for explanation in found:
        log.warn(str(explanation))
    text = "".join(f"{explanation}\n" for explanation in found)
    files.write_text(results / report.EXPLANATION, f"{applied}\n\n{text}")
    try:
        report.write(pairs, results)
    except (CommandError, ToolMissingError) as e:
        log.warn(f"diffoscope could not report: {e.message}")
    return found
