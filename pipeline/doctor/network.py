"""Mirrors: whether those answer that have what this host still lacks; and the clock, by theirs."""

from __future__ import annotations

import time
from collections.abc import Iterator

from pipeline import log
from pipeline.doctor.finding import Finding, State, Subject
from pipeline.fetch import HINT

_PART = "mirrors"
_SKEW = 300.0
"""Seconds that clocks may differ by: more, and certificates and signatures begin to fail."""


def network(subject: Subject) -> Iterator[Finding]:
    """Ask every place once; trouble is what is missing here and can be had nowhere."""
    answers = subject.answers
    reachable = {name for answer in answers if not answer.problem for name in answer.missing}
    missing = {name for answer in answers for name in answer.missing}
    for answer in answers:
        if answer.problem:
            lost = answer.missing - reachable
            yield Finding(
                part=_PART,
                what=answer.place,
                state=State.TROUBLE if lost else State.NOTE,
                says=f"Does not give what is asked for: {answer.problem}.",
                remedy=HINT if lost else "Nothing depends on it: it is in the store, or to be had elsewhere.",
            )
        else:
            took, lacking = log.duration(answer.seconds), len(answer.missing)
            says = f"Answers in {took}; files that are still to be fetched there: {lacking}."
            yield Finding(part=_PART, what=answer.place, state=State.FINE, says=says)
    if not answers:
        yield from _nowhere(subject)
    elif not missing:
        yield Finding(
            part=_PART, what="store", state=State.FINE, says="Holds all that is fetched for the release."
        )


def _nowhere(subject: Subject) -> Iterator[Finding]:
    """No place is known at all: no source, or no mirror of Debian's."""
    if subject.release.sources or subject.release.git:
        yield Finding(
            part=_PART,
            what="Debian",
            state=State.TROUBLE,
            says="No mirror is known: this host has no apt, and the setting names none.",
            remedy="Set mirrors.debian to the root of a Debian mirror.",
        )


def clock(subject: Subject) -> Iterator[Finding]:
    """Compare this host's clock with the servers' and with the release's own time."""
    dates = [answer.date for answer in subject.answers if answer.date is not None]
    now = time.time()
    remedy = "Set it: timedatectl set-ntp true, or date --set."
    if now < subject.release.source_date_epoch:
        says = "This host's clock is before the release's last commit."
        yield Finding(part="clock", what="clock", state=State.TROUBLE, says=says, remedy=remedy)
    elif not dates:
        says = "No server told the time; it is after the release's last commit, at least."
        yield Finding(part="clock", what="clock", state=State.FINE, says=says)
    else:
        # The median: one server may be wrong.
        skew = now - sorted(dates)[len(dates) // 2]
        says = f"Differs from the servers' by {log.duration(abs(skew))}."
        state = State.FINE if abs(skew) < _SKEW else State.TROUBLE
        yield Finding(
            part="clock", what="clock", state=state, says=says, remedy="" if state is State.FINE else remedy
        )
