"""What the tests of nightly builds share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nightly.machine import Site
from tests.repositories import Repository


@pytest.fixture
def site(tmp_path: Path) -> Site:
    upstream = Repository.make(tmp_path / "upstream")
    upstream.commit({"xen/arch/x86/mm.c": b"first"})
    return Site(tmp_path, upstream)
