"""What a package's libraries need of glibc, whatever they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.bundle import requirements
from tests import builds

LIBRARY = Path(__file__).parents[1] / "fuzz" / "corpus" / "glibc" / "first"
NEEDED = b"GLIBC_2.2.5"


def glibc(tmp_path: Path, library: bytes) -> str | None:
    path = tmp_path / "small-1.0-1-any.pkg.tar.xz"
    path.write_bytes(builds.package("small", contents={"usr/lib/libone.so": library}))
    return requirements.read([path]).glibc


def test_the_version_that_a_library_needs_is_read(tmp_path: Path) -> None:
    """Or a bundle would be installed where none of its programs starts."""
    assert glibc(tmp_path, LIBRARY.read_bytes()) == "2.2.5"


@pytest.mark.parametrize("version", ["GLIBC_2.²", "GLIBC_2.9x5", "GLIBC_2....", "GLIBC_PRIVA"])
def test_a_version_that_is_none_is_passed_over(tmp_path: Path, version: str) -> None:
    """A damaged library would end the bundle in a traceback, or make one that nobody can read."""
    data = version.encode().ljust(len(NEEDED), b"\0")
    assert len(data) == len(NEEDED)
    assert glibc(tmp_path, LIBRARY.read_bytes().replace(NEEDED, data)) is None
