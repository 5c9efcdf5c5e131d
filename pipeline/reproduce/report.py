"""diffoscope's report on two packages, as HTML and as text, within bounds of time and size."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from pipeline import log
from pipeline.run import run

EXPLANATION = "explanation.txt"
"""Beside the reports: what was varied, and a line a difference with its cause."""
_SECONDS = 300
_MAX_REPORT = 4 << 20
_MAX_PAGE = 16 << 20


def write(pairs: Iterable[tuple[Path, Path]], folder: Path) -> list[Path]:
    """Report on each pair of packages in ``folder``, and return the files that were written.

    Raises CommandError, TimeLimitError and ToolMissingError.
    """
    written = []
    for first, second in pairs:
        html, text = (folder / f"{first.name}.{kind}" for kind in ("html", "txt"))
        argv: list[str | Path] = [
            *(Path(sys.executable).with_name("diffoscope"), "--no-progress", "--no-default-limits"),
            *("--timeout", str(_SECONDS), "--max-text-report-size", str(_MAX_REPORT)),
            *("--max-report-size", str(_MAX_PAGE), "--html", html, "--text", text, first, second),
        ]
        # 1: they differ, which is known.
        run(argv, timeout=_SECONDS + 60, expect=(0, 1))
        written += [path for path in (html, text) if path.is_file()]
    for path in written:
        log.info(f"report: {path}")
    return written
