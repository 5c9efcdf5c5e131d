"""Puts the shells' scripts where each looks for those of one user."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline import files
from pipeline.errors import UsageError

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Shell:
    """A shell: the script's place for one user, and what it needs so as to look there.

    ``variable`` names the environment's variable for the folder that ``place`` counts from, ``usual`` is
    that folder, below the home folder, where it is not set.
    """

    variable: str
    usual: str
    place: str
    needs: str


SHELLS: Mapping[str, Shell] = {
    "bash": Shell(
        "XDG_DATA_HOME",
        ".local/share",
        "bash-completion/completions/inv",
        "the package bash-completion, or in ~/.bashrc: source {path}",
    ),
    "zsh": Shell(
        "XDG_DATA_HOME",
        ".local/share",
        "zsh/site-functions/_inv",
        "in ~/.zshrc, before compinit: fpath+=({folder})",
    ),
    "fish": Shell("XDG_CONFIG_HOME", ".config", "fish/conf.d/inv.fish", "nothing more"),
}


def install(shells: tuple[str, ...]) -> list[str]:
    """Install the scripts of some shells, of all where none is named; return a line a shell.

    Raises UsageError for a shell that there is no script for.
    """
    lines = []
    for name in shells or tuple(SHELLS):
        shell = SHELLS.get(name)
        if shell is None:
            raise UsageError(f"There is no completion for {name!r}.", hint=f"Shells: {', '.join(SHELLS)}.")
        base = os.environ.get(shell.variable) or str(Path.home() / shell.usual)
        path = Path(base) / shell.place
        files.write_bytes(path, (_HERE / f"inv.{name}").read_bytes())
        lines.append(f"{path}  ({name} needs {shell.needs.format(path=path, folder=path.parent)})")
    return lines
