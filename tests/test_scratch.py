"""Temporary folders: gone afterwards, however a run ends, and nothing else goes with them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.scratch import remove_tree, scratch

HOLD = """
import sys, time
from pathlib import Path
from pipeline.scratch import scratch
with scratch(Path(sys.argv[1]), "held") as folder:
    (folder / "file").touch()
    print(folder, flush=True)
    time.sleep(100)
"""


def test_a_folder_is_gone_afterwards(tmp_path: Path) -> None:
    """Disks fill up otherwise, with gigabytes a build."""
    with pytest.raises(KeyError), scratch(tmp_path, "x"):
        raise KeyError
    with scratch(tmp_path, "x") as folder:
        (folder / "read-only").mkdir(mode=0o500)
    assert list(tmp_path.iterdir()) == []


def test_neighbours_stay(tmp_path: Path) -> None:
    """A new build's temporary folder lies beside the builds of the past."""
    (tmp_path / "result").mkdir()
    (tmp_path / "file").touch()
    with scratch(tmp_path, ".new"), scratch(tmp_path, ".new"):
        assert len(list(tmp_path.iterdir())) == 4
    assert {path.name for path in tmp_path.iterdir()} == {"result", "file"}


def test_what_a_killed_process_left_goes_and_no_other(tmp_path: Path) -> None:
    """A sweep that takes a running build's folder breaks that build."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        held = Path(process.stdout.readline().strip())
        with scratch(tmp_path, "x"):
            assert (held / "file").exists()
        process.kill()
    with scratch(tmp_path, "x"):
        assert not held.exists()


def test_many_at_once(tmp_path: Path) -> None:
    """Two builds that start at the same moment must not sweep each other's folder."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(50):
                with scratch(tmp_path, "x") as folder:
                    (folder / "file").touch()
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_removed_while_what_was_killed_still_writes_to_it(tmp_path: Path) -> None:
    """After Ctrl-C, a build's processes need a moment to end: the user would read "Directory not empty"."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    until = time.monotonic() + 0.4

    def write() -> None:
        number = 0
        while time.monotonic() < until:
            number += 1
            with contextlib.suppress(FileNotFoundError):
                (folder / f"{number}").touch()

    writer = threading.Thread(target=write)
    writer.start()
    remove_tree(folder)
    writer.join()
    assert not folder.exists()


def test_a_folder_deeper_than_any_path_is_removed(tmp_path: Path) -> None:
    """If it stays, every later command trips over it: each one sweeps what was left."""
    with scratch(tmp_path, "x") as folder:
        dig = "for (1..3000) { mkdir 'deep'; chdir 'deep' or die }"
        subprocess.run(["perl", "-e", dig], cwd=folder, check=True)
    assert list(tmp_path.iterdir()) == []
