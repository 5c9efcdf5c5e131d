"""The road of a release: every step in order, with the time that each takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline import log, pace
from pipeline.build import Build
from pipeline.evidence import Evidence
from pipeline.proofs import Proofs
from pipeline.steps import Steps


@dataclass(frozen=True)
class Row:
    """One line of a release's summary."""

    step: str
    seconds: float
    verdict: str


_ROAD = ("fetch", "image", "build", "check", "reproduce", "smoke", "host", "seal")
"""The steps of a release, in their order."""


def travel(steps: Steps, *, reproduce: bool = True, full: bool = False) -> tuple[Build, list[Row]]:
    """Everything in order; returns the build and a row a step.

    ``reproduce`` and ``full`` say whether it is built again, and installed on a whole host where the
    release's image names one.
    """
    proofs = Proofs(steps)
    rows: list[Row] = []
    left_out = {"" if reproduce else "reproduce", "" if full and steps.host_image else "host"}
    names = [name for name in _ROAD if name not in left_out]

    def timed(step: str, work: Callable[[], object]) -> object:
        keys = [f"release {steps.release.name}: {name}" for name in names[len(rows) :]]
        if left := pace.left(keys):
            log.info(f"{step} ({len(rows) + 1} of {len(names)}): what is left took {log.duration(left)}")
        start = time.monotonic()
        result = work()
        seconds = time.monotonic() - start
        pace.note(keys[0], seconds)
        verdict = result.summary if isinstance(result, Evidence) else "done"
        verdict = result if isinstance(result, str) else verdict
        rows.append(Row(step, seconds, verdict))
        return result

    timed("fetch", steps.fetch)
    timed("image", steps.image)
    built = timed("build", steps.build)
    assert isinstance(built, Build)
    timed("check", lambda: proofs.check(built.packages, built.folder))
    if reproduce:
        timed("reproduce", lambda: proofs.reproduce(built))
    timed("smoke", lambda: proofs.smoke(built.packages, built.folder))
    if full and steps.host_image:
        timed("host", lambda: proofs.smoke_host(built.packages, built.folder))
    elif full:
        log.info(f"Not installed on a whole host: none is named for {steps.release.image} (at dom0).")
    timed("seal", lambda: steps.seal(built))
    return built, rows
