"""A failure names the package's file that it points to, and no file that it has nothing to do with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.smoke.blame import file_named, program_of

PACKAGE = frozenset({"usr/bin/xl", "usr/lib/xen/boot/hvmloader.txt", "usr/lib/xen/bin/pygrub", "boot/xen.gz"})


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("17 /bin/busybox S /bin/sh /usr/bin/xl list", "usr/bin/xl"),
        ("41 /usr/bin/xl R xl info", "usr/bin/xl"),
        (
            "libxl: error: could not read '/usr/lib/xen/boot/hvmloader': No such file",
            "usr/lib/xen/boot/hvmloader",
        ),
        ('  File "/usr/lib/xen/bin/pygrub", line 1069, in <module>', "usr/lib/xen/bin/pygrub"),
        ("bash: /usr/bin/other: not found", None),
        ("xl: 5/usr/bin/xl", None),
        ("", None),
    ],
)
def test_the_file_is_found_in_what_was_printed(text: str, file: str | None) -> None:
    """If this fails, a maintainer is sent to the wrong file, or has to search."""
    assert file_named(text, PACKAGE) == file


def test_a_program_that_did_not_run_is_named() -> None:
    """If this fails, an xl that lacks a library is reported as a guest that does not start."""
    assert program_of("xl create /tmp/a.cfg", 127, PACKAGE) == "usr/bin/xl"
    assert program_of("xl create /tmp/a.cfg", 139, PACKAGE) == "usr/bin/xl"
    assert program_of("xl create /tmp/a.cfg", 1, PACKAGE) is None
    assert program_of("grep x", 127, PACKAGE) is None
    assert program_of("", 127, PACKAGE) is None


@given(st.text())
def test_no_output_makes_a_traceback(text: str) -> None:
    """If this fails, a machine that prints rubbish ends the run instead of its case."""
    assert file_named(text, PACKAGE) in {None, *PACKAGE} or "/xen/" in text
