"""The manifest of an unpacked image: every change shows, and nothing else does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.image import tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "usr" / "bin" / "sh").write_bytes(b"shell")
    (root / "bin").symlink_to("usr/bin")
    (root / "new\nline ü").touch()
    (root / os.fsdecode(b"\xff")).touch()
    for path in (root, root / "usr", root / "usr" / "bin"):
        path.chmod(0o755)
    return root


def chmod(root: Path) -> None:
    (root / "usr" / "bin" / "sh").chmod(0o777)


def write(root: Path) -> None:
    (root / "usr" / "bin" / "sh").write_bytes(b"shelk")


def relink(root: Path) -> None:
    (root / "bin").unlink()
    (root / "bin").symlink_to("/usr/bin")


def remove(root: Path) -> None:
    (root / "new\nline ü").unlink()


def add(root: Path) -> None:
    (root / "usr" / "lib").mkdir()


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (chmod, "usr/bin/sh"),
        (write, "usr/bin/sh"),
        (relink, "bin"),
        (remove, "new\\nline \\xfc"),
        (add, "usr/lib"),
    ],
)
def test_every_change_is_named(root: Path, change: Callable[[Path], None], path: str) -> None:
    """What the manifest does not see goes into every package unnoticed."""
    before = tree.manifest(root)
    change(root)
    after = tree.manifest(root)
    assert tree.manifest_sha256(before) != tree.manifest_sha256(after)
    named = tree.differences(before, after)
    assert len(named) == 1
    assert named[0].encode("ascii")
    assert named[0].replace("\\xc3\\xbc", "\\xfc") == path


def test_times_do_not_count(root: Path) -> None:
    """Looking at an image must not make it another one."""
    before = tree.manifest(root)
    os.utime(root / "usr" / "bin" / "sh", (1, 1))
    assert tree.manifest(root) == before
