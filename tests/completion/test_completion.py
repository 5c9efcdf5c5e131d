"""The Tab key, in the three shells themselves."""

from __future__ import annotations

import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext

from pipeline.completion.candidates import complete
from tests import checkouts
from tests.checkouts import Checkout

COMMANDS = [
    ParserContext("build", args=[Argument("release", optional=True), Argument("image"), Argument("without")]),
    ParserContext("image.ready", aliases=["image"], args=[Argument("name", optional=True)]),
    ParserContext("setup", args=[Argument("dev", kind=bool, default=False)]),
    ParserContext("release", args=[Argument("reproduce", kind=bool, default=True)]),
]
FREE = ("release", "target", "name")


def words(line: str) -> list[str]:
    return [c.word for c in complete(line.split(" "), COMMANDS, {"build": "Build it."}, FREE)]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("", ["build", "image", "setup", "release"]),
        ("bu", ["build"]),
        ("build 4.1", ["4.17"]),
        ("build --i", ["--image"]),
        ("build --image debian-b", ["debian-bookworm", "debian-bullseye"]),
        ("build --image=debian-boo", ["--image=debian-bookworm"]),
        ("image debian-boo", ["debian-bookworm"]),
        ("setup --", ["--dev", "--help"]),
        ("release --no", ["--no-reproduce"]),
        ("setup build --im", ["--image"]),
        ("nothing --x", []),
        ("--l", ["--list"]),
    ],
)
def test_candidates_fit_the_place(line: str, wanted: list[str]) -> None:
    """A completion that offers what the command then refuses is worse than none."""
    assert words(line) == wanted


@given(st.lists(st.one_of(st.sampled_from(["build", "--image", "--", "=", "image"]), st.text()), max_size=6))
def test_whatever_was_typed_is_only_completed(line: list[str]) -> None:
    """A Tab must never end in a traceback in the middle of a line."""
    for candidate in complete(line, COMMANDS, {}, FREE):
        assert candidate.word.startswith(line[-1] if line else "")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with an `inv` that needs no environment of its own, and the scripts' home."""
    folder = tmp_path_factory.mktemp("tab")
    root = checkouts.copy(folder / "a copy für sich")
    venv = root / ".venv"
    venv.symlink_to(Path(sys.prefix))
    # The wrapper itself is tested elsewhere; here it must not make an environment, which takes a minute.
    start = f"cd / && PYTHONPATH={shlex.quote(str(root))} exec {shlex.quote(sys.executable)} -m pipeline"
    (root / "inv").write_text(f'#!/bin/sh\n{start} {shlex.quote(str(root))} "$@"\n')
    home = folder / "home"
    home.mkdir()
    env = {"HOME": str(home), "XDG_DATA_HOME": "", "XDG_CONFIG_HOME": ""}
    said = Checkout(root, folder / "store").run("completion", env=env).fine().out
    assert [line.split("(")[1].split()[0] for line in said.splitlines()] == ["bash", "zsh", "fish"]
    return root


def environment(project: Path) -> dict[str, str]:
    home = str(project.parent / "home")
    return {"HOME": home, "PATH": os.environ["PATH"], "TERM": "dumb", "LC_ALL": "C.UTF-8"}


def test_in_bash(project: Path) -> None:
    """The shell that most users have."""
    script = project.parent / "home/.local/share/bash-completion/completions/inv"
    line = 'COMP_WORDS=(./inv build --im); COMP_CWORD=2; _xen_aur_pipeline; echo "${COMPREPLY[@]}"'
    more = 'COMP_WORDS=(./inv build 4.1); COMP_CWORD=2; _xen_aur_pipeline; echo "${COMPREPLY[@]}"'
    value = (
        'COMP_WORDS=(./inv build --image=debian-boo); COMP_CWORD=2; _xen_aur_pipeline; echo "${COMPREPLY[@]}"'
    )
    said = subprocess.run(
        [
            "bash",
            "--norc",
            "-c",
            f"source {shlex.quote(str(script))}; complete -p inv; {line}; {more}; {value}",
        ],
        cwd=project,
        env=environment(project),
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.splitlines()[1:] == ["--image", "4.17", "debian-bookworm"]
    assert said.stderr == ""


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_in_fish(project: Path) -> None:
    """fish reads it when it starts."""
    for line, wanted in (
        ("./inv build 4.1", "4.17"),
        ("./inv docto", "doctor\tSay what works on this host"),
        ("./inv image debian-boo", "debian-bookworm"),
        ("./inv build --image=debian-boo", "--image=debian-bookworm"),
    ):
        said = subprocess.run(
            ["fish", "--command", f"complete --do-complete {shlex.quote(line)}"],
            cwd=project,
            env=environment(project),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert said.startswith(wanted), (line, said)


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_in_zsh(project: Path) -> None:
    """zsh completes on a terminal only: one is made, and Tab is pressed on it."""
    home = project.parent / "home"
    (home / ".zshrc").write_text(
        "fpath+=($HOME/.local/share/zsh/site-functions)\nautoload -Uz compinit && compinit -u -D\nPS1='> '\n"
        "unsetopt zle_bracketed_paste 2> /dev/null\n"
    )
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(project)
        os.execvpe("zsh", ["zsh", "-i"], environment(project))
    try:
        assert "> " in read_until(fd, "> ")
        os.write(fd, b"./inv build 4.1\t")
        assert "4.17" in read_until(fd, "4.17")
        os.write(fd, b"--im\t")
        assert "--image" in read_until(fd, "--image")
    finally:
        os.close(fd)
        os.waitpid(pid, 0)


def read_until(fd: int, wanted: str, seconds: float = 60) -> str:
    """Read what a terminal shows until it shows a text."""
    seen, deadline = "", time.monotonic() + seconds
    while wanted not in seen and time.monotonic() < deadline:
        if select.select([fd], [], [], 0.2)[0]:
            seen += os.read(fd, 4096).decode(errors="replace")
    return seen


def test_only_known_shells(project: Path) -> None:
    """A name that is mistyped must not pass for installed."""
    failed = Checkout(project, project.parent / "store").run("completion", "tcsh").failed(2)
    assert "Shells: bash, zsh, fish." in failed.err
