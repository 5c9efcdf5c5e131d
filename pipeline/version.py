"""Which project this is: where it lies, and which version of it is at work."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pipeline.errors import CommandError, ToolMissingError
from pipeline.run import run

PROJECT = Path(__file__).resolve().parents[1]


@cache
def commit() -> str:
    """The project's commit, with ``-dirty`` where files differ from it; ``unknown`` outside of git."""
    try:
        top = _git("rev-parse", "--show-toplevel")
        # A copy of the project's files within somebody's repository says nothing of us.
        if Path(top) != PROJECT:
            return "unknown"
        return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (CommandError, ToolMissingError):
        return "unknown"


def _git(*words: str) -> str:
    return run(["git", "-C", PROJECT, *words], merge_stderr=False).output.strip()
