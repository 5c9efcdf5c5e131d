"""What a release run ends with: a table of steps, the files, and where the logs are."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline import log
from pipeline.build import Build
from pipeline.road import Row


def render(build: Build, rows: Sequence[Row]) -> str:
    """Render the table as text, for people and for a log."""
    width = max(len(row.step) for row in rows)
    lines = [f"Release {build.record.release}, build {build.record.build_id}", ""]
    lines += [f"  {row.step:<{width}}  {log.duration(row.seconds):>12}  {row.verdict}" for row in rows]
    total = sum(row.seconds for row in rows)
    lines += [f"  {'all':<{width}}  {log.duration(total):>12}", ""]
    for package in build.record.packages:
        lines += [f"  {package.file}  {log.size(package.size)}", f"    sha256 {package.sha256}"]
    lines += ["", f"Packages, logs and results: {build.folder}"]
    return "\n".join(lines)
