"""Programs that are not what their names say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def instead(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, script: str) -> None:
    """Have a shell script found in the place of a program; ``folder`` is where it may lie."""
    program = folder / f"instead of {name}" / name
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
