"""Differences as text for a terminal."""

from __future__ import annotations

from pipeline.diff.compare import Difference
from pipeline.diff.render import render


def test_no_name_of_a_file_reaches_the_terminal_as_more_than_a_name() -> None:
    """A package from elsewhere could otherwise forge lines, or have the terminal do things."""
    found = Difference("small", "1.0-1", "1.0-2", added=("usr/\x1b[2Jx\nerror: fake\udcff",))
    lines = render([found]).split("\n")
    assert any(r"usr/\x1b[2Jx\nerror: fake\udcff" in line for line in lines)
    assert not any(line.startswith("error") for line in lines)
