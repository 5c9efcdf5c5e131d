"""The series that a version belongs to."""

from __future__ import annotations

import re


def series_of(version: str) -> tuple[int, int] | None:
    """Return the first two numbers of a version, or None where it has none.

    It may be that of a release (4.20.1), of a branch (4.23-unstable), or what a program says of itself:
    "QEMU emulator version 7.2.22 (Debian ...)".
    """
    match = re.search(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else None
