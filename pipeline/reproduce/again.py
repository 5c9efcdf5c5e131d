"""The second build: a process of its own, in a copy of the checkout elsewhere, in an environment of its own.

Its arguments are two files: a Request to read and a BuildRecord to write, both JSON.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from pipeline import log, records
from pipeline.build import BuildRecord
from pipeline.builder import Builder
from pipeline.engine.job import Circumstances
from pipeline.errors import FailureError, PipelineError
from pipeline.release import BranchLock
from pipeline.settings import Settings
from pipeline.steps import Steps


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to build, and how differently; ``artifacts`` is where the packages go."""

    settings: Settings
    release: str
    without: tuple[str, ...]
    image: str
    lock: BranchLock | None
    series: tuple[str, ...]
    build_id: str
    jobs: int
    circumstances: Circumstances
    artifacts: Path


def build(request: Request) -> BuildRecord:
    """Build a release anew; raises FailureError where the copy of the checkout makes another build of it."""
    steps = Steps(
        request.settings, request.release, request.without, request.image, request.lock, request.series
    )
    plan = steps.plan()
    if plan.build_id != request.build_id:
        raise FailureError(f"From another folder, this is build {plan.build_id}, not {request.build_id}.")
    settings = request.settings
    builder = Builder(
        store=settings.open_store,
        artifacts=request.artifacts,
        engine=lambda: steps.engine,
        sources=steps.fetch,
        jobs=request.jobs,
        anew=True,
        circumstances=request.circumstances,
    )
    return builder.build(plan).record


def main(request: Path, record: Path) -> int:
    """Read a request, build, and write the record; returns the exit status."""
    try:
        record.write_bytes(records.encode(build(records.decode(request.read_bytes(), Request))))
    except PipelineError as e:
        log.error(e.message, e.hint)
        return e.status
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
