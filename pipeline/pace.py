"""How long each step took last time on this machine: what a user who waits wants to know.

A convenience only: it is kept in the user's cache folder, and nothing fails without it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from pipeline import files

_MOST = 400
_WORTHWHILE = 1.0
"""Seconds; of what took less, nobody asks how long it takes."""


def _path() -> Path:
    import platformdirs  # not before a step begins: `--list` must not wait for it

    return platformdirs.user_cache_path("xen-aur-pipeline") / "paces.json"


def _read() -> dict[str, float]:
    """The seconds by step, those noted last at the end."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads(_path().read_bytes())
        if isinstance(found, dict):
            numbers = {k: v for k, v in found.items() if isinstance(v, (int, float)) and 0 < v < 1e9}
            return dict(list(numbers.items())[-_MOST:])
    return {}


def last(step: str) -> float | None:
    """How many seconds a step took when it last did something; None where that is not known."""
    return _read().get(step)


def note(step: str, seconds: float) -> None:
    """Remember how long a step took, unless it had hardly anything to do."""
    if seconds < _WORTHWHILE:
        return
    known = {name: value for name, value in _read().items() if name != step}
    with contextlib.suppress(OSError):
        files.write_text(_path(), json.dumps({**known, step: round(seconds, 1)}, indent=1) + "\n")


def left(steps: Sequence[str]) -> float:
    """How many seconds several steps took last time, as far as that is known."""
    known = _read()
    return sum(known.get(step, 0.0) for step in steps)
