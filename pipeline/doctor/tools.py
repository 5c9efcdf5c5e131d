"""The programs that the pipeline runs here: whether each is there, and its version."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pipeline.definition import convert, load_toml
from pipeline.doctor.finding import Finding, State, Subject
from pipeline.errors import PipelineError
from pipeline.run import run

_TABLE = Path(__file__).with_name("tools.toml")
_SECONDS = 20.0


class Tool(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One row of tools.toml: ``version`` are the arguments that make it tell its version, if any do."""

    version: tuple[str, ...]
    needed_by: str
    since: str = ""
    optional: bool = False


def tools(_: Subject) -> Iterator[Finding]:
    """Look at every program of tools.toml."""
    for name, row in load_toml(_TABLE).items():
        yield look(name, convert(_TABLE, row, Tool))


def look(name: str, tool: Tool) -> Finding:
    """Say whether a program is there, starts, and is new enough."""
    bad = State.NOTE if tool.optional else State.TROUBLE

    def finding(state: State, says: str, remedy: str = "") -> Finding:
        return Finding(part="tools", what=name, state=state, says=says, remedy=remedy)

    # As most users' PATH lacks the folders of root's programs, that is no reason to say it is missing.
    path = shutil.which(name) or shutil.which(name, path=os.defpath + ":/usr/sbin:/sbin")
    if path is None:
        return finding(bad, f"Is not installed; needed by {tool.needed_by}.", "./inv setup")
    if not tool.version:
        return finding(State.FINE, f"{path}; for {tool.needed_by}.")
    try:
        said = run([path, *tool.version], timeout=_SECONDS).output
    except (PipelineError, OSError) as e:
        return finding(bad, f"{path} does not start: {e}", "Install it again: ./inv setup names the package.")
    found = re.search(r"\d+(\.\d+)+\w*", said)
    version = found[0] if found else "unknown"
    if tool.since and _numbers(version) < _numbers(tool.since):
        return finding(
            bad, f"Is version {version}; {tool.needed_by} needs {tool.since}.", "Update this system."
        )
    return finding(State.FINE, f"{version}; for {tool.needed_by}.")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(word) for word in re.findall(r"\d+", version))
