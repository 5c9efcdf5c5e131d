"""Which series a version belongs to."""

from __future__ import annotations

import pytest

from pipeline.smoke.series import series_of


@pytest.mark.parametrize(
    ("text", "series"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg)", (7, 2)),
        ("4.22-unstable", (4, 22)),
        ("4.2.5", (4, 2)),
        ("unstable", None),
        ("", None),
    ],
)
def test_the_first_two_numbers_of_a_version(text: str, series: tuple[int, int] | None) -> None:
    """If this fails, what holds for one Xen or QEMU is expected of another."""
    assert series_of(text) == series
