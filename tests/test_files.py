"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import files

WRITE = """
import sys
from pathlib import Path
from pipeline import files
while True:
    for byte in b"ab":
        files.write_bytes(Path(sys.argv[1]), bytes([byte]) * 3_000_000)
"""


def test_a_kill_leaves_the_old_or_the_new_content(tmp_path: Path) -> None:
    """Half a build record would make the next run fail, or believe it."""
    path = tmp_path / "record"
    for seed in range(5):
        with subprocess.Popen([sys.executable, "-c", WRITE, path]) as process:
            while not path.exists():
                time.sleep(0.01)
            time.sleep(random.Random(seed).uniform(0, 0.1))
            process.kill()
        data = path.read_bytes()
        assert len(data) == 3_000_000
        assert len(set(data)) == 1


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """Remains of failed writes would pile up."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        files.write_bytes(tmp_path / "folder", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_permissions_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    """An AUR folder that only its maker can read, for one."""
    old = os.umask(0o077)
    try:
        files.write_text(tmp_path / "a" / "b", "ä")
    finally:
        os.umask(old)
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "a" / "b").read_bytes() == "ä".encode()


def test_links_are_replaced_in_one_step(tmp_path: Path) -> None:
    """Between two builds there must never be no latest one."""
    files.replace_link(tmp_path / "latest", "one")
    files.replace_link(tmp_path / "latest", "two")
    assert (tmp_path / "latest").readlink() == Path("two")
    assert [path.name for path in tmp_path.iterdir()] == ["latest"]


def test_hashes_are_those_of_sha256sum(tmp_path: Path) -> None:
    """Everything rests on them."""
    (tmp_path / "x").write_bytes(b"abc")
    assert files.sha256(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()
    files.sync_tree(tmp_path)
