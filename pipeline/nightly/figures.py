"""What a night measured, for the trends of the report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pipeline import evidence
from pipeline.build import Build
from pipeline.evidence import Kind, UnprovenError
from pipeline.nightly.night import Figures, Stage
from pipeline.smoke import results as smoke

_WARNING = re.compile(rb"^\S+:\d+(?::\d+)?: warning: ", re.MULTILINE)
_XL_LIST = "xl-list"


def measure(stages: Sequence[Stage], built: Build | None) -> Figures:
    """Gather the figures of a night; ``built`` is None where the build failed."""
    seconds = {stage.name: stage.seconds for stage in stages}
    flakes = sum(stage.flaky for stage in stages)
    if built is None:
        return Figures(build_seconds=seconds.get("build"), flakes=flakes)
    return Figures(
        build_seconds=seconds.get("build"),
        boot_seconds=_boot(built.folder),
        package_bytes=sum(package.size for package in built.record.packages),
        warnings=_warnings(built.folder / "compile.log"),
        reproducible=_reproducible(built.folder),
        flakes=flakes,
        ccache=None if built.record.ccache is None else round(built.record.ccache.share, 3),
    )


def _boot(folder: Path) -> float | None:
    """Seconds from the machine's start to the first check that `xl` answered."""
    try:
        result = smoke.read(folder / "smoke" / smoke.JSON)
    except (OSError, msgspec.DecodeError):
        return None
    for check in result.cases:
        if check.name == _XL_LIST and check.verdict is smoke.Verdict.PASS:
            return round(check.begin + check.seconds, 1)
    return None


def _warnings(log: Path) -> int | None:
    try:
        return len(_WARNING.findall(log.read_bytes()))
    except OSError:
        return None


def _reproducible(folder: Path) -> bool | None:
    try:
        found = evidence.read(folder, Kind.REPRODUCE)
    except UnprovenError:
        return None
    return None if found is None else found.passed
