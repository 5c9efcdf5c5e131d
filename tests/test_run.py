"""The one function that runs programs: how they end, and that nothing of them stays."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.errors import CommandError, TimeLimitError, ToolMissingError
from pipeline.run import run
from tests.checkouts import running_in

RUN = """
import sys
from pipeline.run import run
run(["sh", "-c", "cd $0; sleep 1000 & sleep 1000 > /dev/null & echo started >&2; wait", sys.argv[1]],
    on_line=lambda line: print(line, flush=True))
"""


def test_a_failure_shows_the_command_and_its_last_lines() -> None:
    """Without them users cannot tell what went wrong."""
    with pytest.raises(CommandError, match="sh ended with exit status 3") as caught:
        run(["sh", "-c", "seq 1 100; exit 3"])
    hint = (caught.value.hint or "").splitlines()
    assert hint == ["The command was: sh -c 'seq 1 100; exit 3'", *map(str, range(51, 101))]
    with pytest.raises(CommandError, match="SIGSEGV"):
        run(["sh", "-c", "kill -SEGV $$"])


def test_a_missing_program_is_named() -> None:
    """The remedy is to install it."""
    with pytest.raises(ToolMissingError, match="no-such-program is not installed"):
        run(["no-such-program"])


def test_output_is_whole_or_streamed() -> None:
    """Parsers need all of it, users see it as it comes."""
    assert run(["seq", "1", "100"]).output.count("\n") == 100
    lines: list[str] = []
    result = run(["sh", "-c", "seq 1 100; printf 'end\\377'"], on_line=lines.append)
    assert lines == [*map(str, range(1, 101)), "end\ufffd"]
    assert result.output.splitlines() == lines[-50:]
    assert run(["cat"], input=b"in").output == "in"
    assert run(["sh", "-c", "echo out; echo err >&2"], merge_stderr=False).output == "out\n"


def test_the_environment_is_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's variable that reaches a build makes packages differ."""
    monkeypatch.setenv("SECRET", "x")
    assert run(["/usr/bin/env"], env={"A": "b"}).output == "A=b\n"
    assert "SECRET=x" in run(["env"]).output


@pytest.mark.parametrize("streamed", [True, False])
def test_a_time_limit_ends_all_of_a_program(tmp_path: Path, streamed: bool) -> None:
    """A hanging program must not hang the pipeline, nor live on behind it."""
    start = time.monotonic()
    with pytest.raises(TimeLimitError, match=r"0\.5 s"):
        run(
            ["sh", "-c", "sleep 1000 & sleep 1000; wait"],
            cwd=tmp_path,
            timeout=0.5,
            on_line=(lambda _: None) if streamed else None,
        )
    assert time.monotonic() - start < 5
    time.sleep(0.1)
    assert running_in(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_outlives_this_process(tmp_path: Path, number: signal.Signals) -> None:
    """A compiler that runs on after kill -9 writes into the folders of the next run."""
    with subprocess.Popen(
        [sys.executable, "-c", RUN, tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        assert len(running_in(tmp_path)) >= 3
        process.send_signal(number)
    time.sleep(0.3)
    assert running_in(tmp_path) == []


def test_what_a_program_leaves_running_ends_with_it(tmp_path: Path) -> None:
    """A daemon that a tool started would keep folders busy."""
    run(["sh", "-c", "sleep 1000 > /dev/null 2>&1 &"], cwd=tmp_path)
    time.sleep(0.1)
    assert running_in(tmp_path) == []
