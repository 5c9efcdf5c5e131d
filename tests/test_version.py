"""Which commit made a package: provenance must not claim one that did not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import checkouts

ASK = "from pipeline.version import commit; print(commit())"


def asked(root: Path) -> str:
    return subprocess.run(
        [sys.executable, "-c", ASK], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_a_commit_and_whether_files_differ_from_it(tmp_path: Path) -> None:
    """Or a package made of uncommitted changes would pass for one of a commit."""
    root = checkouts.copy(tmp_path / "copy")
    assert asked(root) == "unknown"
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        identity = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
        subprocess.run(["git", *identity, *words], cwd=root, check=True, capture_output=True)
    clean = asked(root)
    assert len(clean) == 40
    (root / "tasks.py").write_text("")
    assert asked(root) == f"{clean}-dirty"


def test_a_copy_inside_another_repository_has_no_commit(tmp_path: Path) -> None:
    """The commit of a user's home folder says nothing of this project."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    assert asked(checkouts.copy(tmp_path / "copy")) == "unknown"
