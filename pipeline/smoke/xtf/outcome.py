"""What a test's console says of its end, and what Xen is capable of; by the rules of xtf-runner."""

from __future__ import annotations

import re
from enum import StrEnum

MARK = "Test result:"
_LINE_END = re.compile(r"\r\n|\r|\n")


class Outcome(StrEnum):
    """How a test ended, by its own word; in the order in which xtf-runner looks for the words."""

    SUCCESS = "success"
    SKIP = "skip"
    """It cannot be made here."""
    ERROR = "error"
    """Something is wrong with the test itself."""
    FAILURE = "failure"
    """Something is wrong with Xen."""
    CRASH = "crash"
    """It did not come to say anything."""


def result_line(console: str) -> str | None:
    """Return the line of a guest's console that tells the result, or None where there is none."""
    return next((line.strip() for line in _LINE_END.split(console) if MARK in line), None)


def interpret(console: str) -> Outcome:
    """Return the outcome that a guest's console tells."""
    line = result_line(console)
    if line is None:
        return Outcome.CRASH
    # As xtf-runner: the word may be anywhere in the line, and of several the first of this order counts.
    return next((outcome for outcome in Outcome if outcome.upper() in line), Outcome.CRASH)


def capabilities(xl_info: str) -> frozenset[str]:
    """Return which of pv, pv32, hvm, hap and shadow Xen offers, from the output of ``xl info``.

    Before 4.12, virt_caps names hvm at the most: PV is then seen in xen_caps, and the two kinds of paging,
    which Xen 4.2 has both, are taken to be there with HVM.
    """
    told = dict(re.findall(r"^(virt_caps|xen_caps)[ \t]*:(.*)$", xl_info, re.MULTILINE))
    virt, xen = (set(told.get(name, "").split()) for name in ("virt_caps", "xen_caps"))
    found = virt & {"pv", "hvm", "hap", "shadow"}
    if not virt & {"pv", "hap", "shadow"}:
        if "xen-3.0-x86_64" in xen:
            found.add("pv")
        if "hvm" in found:
            found |= {"hap", "shadow"}
    if "pv" in found and "xen-3.0-x86_32p" in xen:
        found.add("pv32")
    return frozenset(found)
