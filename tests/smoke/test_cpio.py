"""The initramfs writer, judged by cpio itself."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.smoke.cpio import CharDevice, Directory, File, Symlink, Tree, write_newc

NAMES = st.text("abcdefg.-_é", min_size=1, max_size=9).filter(lambda name: name not in (".", ".."))


def listed(archive: bytes, option: str) -> bytes:
    return subprocess.run(["cpio", option, "--quiet"], input=archive, check=True, capture_output=True).stdout


def test_cpio_reads_back_what_was_written(tmp_path: Path) -> None:
    """If this fails, dom0's kernel finds a broken root or none."""
    tree: Tree = {
        "init": File(b"#!/bin/sh\n", 0o755),
        "a/b/data": File(bytes(range(256)) * 3),
        "a/empty": File(b""),
        "link": Symlink("a/b/data"),
        "tmp": Directory(0o1777),
    }
    subprocess.run(["cpio", "-i", "--quiet"], input=write_newc(tree), cwd=tmp_path, check=True)
    assert (tmp_path / "a/b/data").read_bytes() == bytes(range(256)) * 3
    assert (tmp_path / "a/empty").read_bytes() == b""
    assert (tmp_path / "link").readlink() == Path("a/b/data")
    assert stat.S_IMODE((tmp_path / "init").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "tmp").stat().st_mode) == 0o1777


def test_cpio_lists_device_nodes() -> None:
    """If this fails, dom0's first process has no console and its messages are lost."""
    archive = write_newc({"dev/console": CharDevice(5, 1)})
    listing = listed(archive, "-itv")
    assert b"crw-------" in listing
    assert b"5,   1" in listing


@given(st.dictionaries(NAMES, st.binary(max_size=50), max_size=8))
def test_bytes_depend_on_content_only_and_cpio_finds_all(files: dict[str, bytes]) -> None:
    """If this fails, the recorded hash of an initramfs says nothing about what was in it."""
    tree: Tree = {name: File(data) for name, data in files.items()}
    shuffled: Tree = dict(reversed(list(tree.items())))
    archive = write_newc(tree)
    assert archive == write_newc(shuffled)
    assert len(archive) % 4 == 0
    listing = listed(archive, "-it")
    assert listing.decode().splitlines() == sorted(files)


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../../up", "", "a//b", "a/"])
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    """If this fails, a strange path in a package writes over another file of dom0."""
    with pytest.raises(ValueError, match="not a plain relative path"):
        write_newc({path: File(b"")})
