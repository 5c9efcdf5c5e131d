"""The project's own linters and tests."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from pipeline import log
from pipeline.errors import CommandError, FailureError
from pipeline.run import run
from pipeline.version import PROJECT


def lint() -> None:
    """Run ruff, mypy and shellcheck; raises FailureError naming the one that complained."""
    support = [path for path in (PROJECT / "package").iterdir() if path.is_file()]
    scripts = [path for path in support if path.read_bytes().startswith(b"#!")]
    scripts += [PROJECT / "inv", *(PROJECT / "pipeline").rglob("*.sh")]
    commands: dict[str, list[str | Path]] = {
        "ruff check": [sys.executable, "-m", "ruff", "check", "."],
        "ruff format": [sys.executable, "-m", "ruff", "format", "--check", "."],
        "mypy": [sys.executable, "-m", "mypy"],
        "shellcheck": ["shellcheck", *sorted(scripts)],
    }
    for name, argv in commands.items():
        with log.step(name):
            try:
                run(argv, cwd=PROJECT)
            except CommandError as e:
                raise FailureError(f"{name} complains.", hint=e.hint) from e


def sabotage(moments: int, *, select: str) -> str:
    """Try every fault in every step, and so many moments of each; return the figures.

    Raises FailureError, with the figures, where something did not survive.
    """
    import junitparser

    argv = [sys.executable, "-m", "pytest", "--numprocesses=auto", "tests/sabotage"]
    argv += ["-k", select] if select else []
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        env = {**os.environ, "SABOTAGE": str(moments)}
        run([*argv, f"--junitxml={report}"], cwd=PROJECT, env=env, on_line=log.info, expect=None)
        if not report.is_file():
            raise FailureError("The sabotage could not be carried out; what pytest said stands above.")
        cases = [case for suite in junitparser.JUnitXml.fromfile(str(report)) for case in suite]
    tried = [case for case in cases if not case.is_skipped]
    fell = [case.name for case in tried if not case.is_passed]
    figures = (
        f"{len(tried)} faults tried, {len(tried) - len(fell)} survived, {len(cases) - len(tried)} skipped."
    )
    if fell:
        raise FailureError(figures, hint="\n".join(fell))
    return figures


def test(*, select: str, unit: bool) -> None:
    """Run pytest, showing all that it says; raises FailureError where a test failed."""
    argv = [sys.executable, "-m", "pytest", "--numprocesses=auto"]
    if select:
        argv += ["-k", select]
    if unit:
        argv += ["-m", "not integration"]
    result = run(argv, cwd=PROJECT, env=dict(os.environ), on_line=log.info, expect=None)
    if result.status != 0:
        raise FailureError("The tests failed.")
