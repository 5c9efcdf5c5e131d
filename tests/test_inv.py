"""The wrapper, in copies of this checkout: the first thing that a newcomer runs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import checkouts
from tests.checkouts import Checkout

pytestmark = pytest.mark.integration
NOBODY = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def checkout() -> Iterator[Path]:
    """A copy in a folder that every user can look into, with what `--list` needs as its lock."""
    folder = Path(tempfile.mkdtemp(prefix="inv-"))
    folder.chmod(0o755)
    root = checkouts.copy(folder / "a copy für sich")
    lock = (root / "requirements.lock").read_text()
    wanted = re.findall(r"^(?:invoke|msgspec|tqdm)==(?:.*\\\n)*.*\n", lock, re.MULTILINE)
    assert len(wanted) == 3
    (root / "requirements.lock").write_text("".join(wanted))
    yield root
    shutil.rmtree(folder)


def start(checkout: Path, *arguments: str, prefix: tuple[str, ...] = (), **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*prefix, str(checkout / "inv"), *arguments],
        cwd="/",
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "smoke" in out
    return out, err


def test_two_first_runs_at_once_and_quick_later_ones(checkout: Path, tmp_path: Path) -> None:
    """Whoever waits a second for every command, or breaks the environment by impatience, goes away."""
    both = [finish(process) for process in [start(checkout, "--list"), start(checkout, "--list")]]
    assert sum("Python environment" in err for _, err in both) == 1
    times = []
    for _ in range(5):
        before = time.monotonic()
        assert finish(start(checkout, "--list"))[1] == ""
        times.append(time.monotonic() - before)
    assert min(times) < 0.6, times  # 0.3 s on a machine that does nothing else
    (tmp_path / "link").symlink_to(checkout / "inv")
    assert subprocess.run([tmp_path / "link", "--list"], capture_output=True).returncode == 0


def test_a_kill_in_the_first_run_costs_time_only(checkout: Path) -> None:
    """An environment that is half there would fail in a new way at every command."""
    for seconds in (1.0, 3.0):
        process = start(checkout, "--list")
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    finish(start(checkout, "--list"))


def test_another_python_means_another_environment(checkout: Path) -> None:
    """After the system's Python became a newer one, every command would be a traceback."""
    finish(start(checkout, "--list"))
    python = checkout / ".venv" / "bin" / "python3"
    python.unlink()
    python.symlink_to("/usr/bin/python3.99")
    assert "Python environment" in finish(start(checkout, "--list"))[1]


@needs_root
def test_other_users_can_run_it(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """In somebody else's checkout, the environment goes to the user's own cache."""
    home = checkout.parent / "home"
    home.mkdir()
    os.chown(home, 1000, 1000)
    finish(start(checkout, "--list", prefix=tuple(NOBODY), HOME=str(home), XDG_CACHE_HOME=""))
    assert not (checkout / ".venv").exists()
    assert list((home / ".cache" / "xen-aur-pipeline").glob("venv-*"))


@pytest.fixture
def project(tmp_path: Path) -> Checkout:
    return Checkout(
        checkouts.copy(tmp_path / "copy"), tmp_path / "store", {"INVOKE_PIPELINE_RELEASE": "4.17"}
    )


@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="not a Debian system")
def test_setup_says_what_to_run(project: Checkout) -> None:
    """Users without root must learn the one command that their administrator runs."""
    folder = Path(tempfile.mkdtemp(prefix="inv-"))
    folder.chmod(0o755)
    fake = folder / "dpkg-query"
    fake.write_text(f'#!/bin/sh\n{shutil.which("dpkg-query")} "$@" | grep -v "^kmod "\n')
    fake.chmod(0o755)
    root = checkouts.copy(folder / "copy")
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder)}
    # This test's Python may lie where only root can look, such as below /root.
    look = [f"--{kind}-caps=+dac_read_search" for kind in ("inh", "ambient")]
    prefix = ["setpriv", "--reuid=1000", *look] if os.geteuid() == 0 else []
    other = Checkout(root, project.store, project.environment)
    failed = other.run("setup", env=env, prefix=prefix).failed(3)
    assert "This host lacks kmod" in failed.err
    assert failed.err.count("hint: Run as root: ") == 1
    assert failed.err.rstrip().endswith("kmod")
    shutil.rmtree(folder)


def test_setup_again_does_nothing(project: Checkout) -> None:
    """It stands before every command in README."""
    project.run("setup").fine()
    again = project.run("setup").fine()
    assert "everything is installed" in again.err
    assert again.seconds < 4  # two seconds on a machine that does nothing else
