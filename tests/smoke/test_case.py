"""What cases know of the Xen before anything is booted."""

from __future__ import annotations

import pytest

from pipeline.smoke.accelerator import Accelerator, Kind
from pipeline.smoke.case import Facts, since
from pipeline.smoke.errors import PackageContentError


def facts(version: str) -> Facts:
    return Facts(version, Accelerator(Kind.TCG, "no KVM here"))


@pytest.mark.parametrize(
    ("version", "series"),
    [("4.2.5", (4, 2)), ("4.17.5", (4, 17)), ("4.23-unstable", (4, 23)), ("5.0", (5, 0))],
)
def test_versions_of_releases_and_of_what_comes_next_are_read(version: str, series: tuple[int, int]) -> None:
    """If this fails, every night of unstable ends in an error of the pipeline's own."""
    assert facts(version).series == series


def test_what_is_no_version_is_the_packages_fault() -> None:
    """If this fails, a damaged package ends in a traceback."""
    with pytest.raises(PackageContentError, match="no version"):
        _ = facts("unstable").series


def test_a_case_that_a_series_has_not_says_so() -> None:
    """If this fails, 4.2 is red for what it never had."""
    need = since(4, 10, "PVH")
    assert need(facts("4.2.5")) == "4.2 has no PVH."
    assert need(facts("4.23-unstable")) is None
