"""What users see while they wait: colours for people only, times of last time, and a sentence at Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import log, pace
from tests import checkouts
from tests.checkouts import PROJECT, Checkout

SCRIPT = """
from pipeline import log
with log.step("Waiting"):
    log.warn("beware")
log.error("It broke.", hint="Mend it.")
"""


def on_a_terminal(**env: str) -> str:
    """What the script shows on a terminal."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(
            sys.executable, [sys.executable, "-c", SCRIPT], {**os.environ, "PYTHONPATH": str(PROJECT), **env}
        )
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        while block := os.read(fd, 4096):
            shown += block
    os.close(fd)
    os.waitpid(pid, 0)
    return shown.decode()


@pytest.mark.parametrize(
    ("env", "coloured"),
    [
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb", "NO_COLOR": ""}, False),
    ],
)
def test_colours_only_where_they_are_wanted(env: dict[str, str], coloured: bool) -> None:
    """Escape sequences in a log or on a screen reader are noise."""
    shown = on_a_terminal(**env)
    assert ("\033[" in shown) is coloured
    assert "hint: " in shown or coloured


def test_no_terminal_no_escape_sequences() -> None:
    """CI keeps every byte."""
    said = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        check=True,
        env=os.environ,
    )
    assert "\033" not in said.stderr + said.stdout
    assert "\r" not in said.stderr
    assert said.stdout == ""


def test_a_step_says_how_long_it_took_last_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever does not know whether it is a minute or an hour stops it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pace.note("Compiling", 175.0)
    pace.note("Nothing", 0.2)
    with log.step("Compiling"), log.step("Nothing"):
        pass
    assert "==> Compiling (last time: 2 min 55 s)" in capsys.readouterr().err
    assert pace.last("Nothing") is None
    assert pace.left(["Compiling", "Nothing", "unknown"]) == 175.0
    for number in range(500):
        pace.note(f"step {number}", 2.0)
    assert len(json.loads((tmp_path / "xen-aur-pipeline" / "paces.json").read_text())) <= 401


@given(
    st.one_of(
        st.binary(),
        st.recursive(st.floats() | st.text(), lambda x: st.dictionaries(st.text(), x)).map(
            lambda value: json.dumps(value).encode()
        ),
    )
)
def test_a_damaged_note_is_no_reason_to_fail(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """A convenience must never stop a build."""
    folder = tmp_path_factory.mktemp("pace")
    (folder / "xen-aur-pipeline").mkdir()
    (folder / "xen-aur-pipeline" / "paces.json").write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        assert pace.last("x") is None or pace.last("x")
        pace.note("x", 3.0)
        assert pace.last("x") == 3.0


def test_a_note_that_cannot_be_written_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a home folder builds too."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    pace.note("x", 3.0)


@given(st.integers(min_value=0, max_value=1 << 60), st.floats(min_value=0, max_value=1e8))
def test_sizes_and_times_are_for_people(count: int, seconds: float) -> None:
    """Nobody counts the digits of bytes, or reads "60.0 s"."""
    number, unit = log.size(count).split()
    assert float(number) < 1024 or unit == "GiB"
    words = log.duration(seconds).split()
    assert len(words) % 2 == 0
    assert "60" not in words[1::2]
    assert log.duration(59.97) == "1 min 00 s"


def test_ctrl_c_at_any_moment_is_a_sentence(tmp_path: Path) -> None:
    """Also while the program is still being loaded, which is when an impatient user presses it."""
    checkout = Checkout(
        checkouts.copy(tmp_path / "copy"), tmp_path / "store", {"INVOKE_PIPELINE_RELEASE": "4.17"}
    )
    chance, seen = random.Random(7), 0
    for _ in range(12):
        with checkout.popen("doctor", "4.17", env={"DOCKER_HOST": "unix:///none"}) as process:
            # Only the start of the program itself, in which sh or env has not yet held the signal back.
            time.sleep(0.05 + chance.uniform(0, 0.7))
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert "Traceback" not in err, err
        # Where it met code that a library has made, Python ends by the signal itself: to shells, 130.
        status = 130 if process.returncode == -signal.SIGINT else process.returncode
        assert status in (0, 3, 130)
        if status == 130:
            seen += 1
            assert "error: Interrupted.\nhint: The same command" in err
    assert seen
