"""How the end of a test is read off its console, and what Xen can do off xl info."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.smoke.xtf.outcome import MARK, Outcome, capabilities, interpret, result_line


@pytest.mark.parametrize(
    ("console", "outcome"),
    [
        ("--- Xen Test Framework ---\nTest result: SUCCESS\n", Outcome.SUCCESS),
        ("Test result: SKIP\r\n", Outcome.SKIP),
        ("Test result: ERROR", Outcome.ERROR),
        ("x\nTest result: FAILURE\n\n", Outcome.FAILURE),
        ("(XEN) Test result: SUCCESS\n", Outcome.SUCCESS),
        # The first line with the mark counts, and in it the first word of the runner's order.
        ("Test result: FAILURE\nTest result: SUCCESS\n", Outcome.FAILURE),
        ("Test result: FAILURE, and no SUCCESS", Outcome.SUCCESS),
        ("Test result: CRASH", Outcome.CRASH),
        ("Test result: success", Outcome.CRASH),
        ("Test result:", Outcome.CRASH),
        ("SUCCESS\n", Outcome.CRASH),
        ("******\nPANIC: Unhandled exception\n******\n", Outcome.CRASH),
        ("", Outcome.CRASH),
    ],
)
def test_console_is_read_as_the_runner_does(console: str, outcome: Outcome) -> None:
    """If this fails, a test has another result here than with xtf-runner."""
    assert interpret(console) is outcome


@given(st.lists(st.text(st.characters(exclude_characters="\r\n"))), st.sampled_from(["\n", "\r\n", "\r"]))
def test_words_before_the_result_do_not_matter(lines: list[str], end: str) -> None:
    """If this fails, what a test prints on its way can change its result."""
    before = end.join(line for line in lines if MARK not in line)
    assert interpret(f"{before}{end}{MARK} FAILURE{end}{MARK} SUCCESS") is Outcome.FAILURE
    assert result_line(before) is None


NEW = "virt_caps              : pv hvm hap shadow gnttab-v1 gnttab-v2\n"
OLD = "virt_caps              : hvm\n"
CAPS_64 = "xen_caps               : xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 \n"
CAPS_32 = CAPS_64.replace("x86_64 hvm", "x86_64 xen-3.0-x86_32p hvm", 1)


@pytest.mark.parametrize(
    ("info", "found"),
    [
        (NEW + CAPS_64, "pv hvm hap shadow"),
        (NEW + CAPS_32, "pv pv32 hvm hap shadow"),
        (OLD + CAPS_32, "pv pv32 hvm hap shadow"),
        ("virt_caps :\n" + CAPS_64, "pv"),
        ("virt_caps : hvm hap\n" + CAPS_32, "hvm hap"),
        ("", ""),
    ],
)
def test_capabilities_of_xen(info: str, found: str) -> None:
    """If this fails, tests are left out of which Xen is capable, or count as crashed where it is not."""
    assert capabilities(info) == set(found.split())
