"""The findings as a table for people, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import msgspec

from pipeline import log
from pipeline.doctor.finding import Finding, State

_COLOURS = {State.FINE: "32", State.NOTE: "33", State.TROUBLE: "31;1"}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What --json prints: for which release, whether it can be made here, and every finding."""

    release: str
    able: bool
    findings: tuple[Finding, ...]


def able(findings: Sequence[Finding]) -> bool:
    """Whether nothing stands in the way of a release."""
    return all(finding.state is not State.TROUBLE for finding in findings)


def as_json(release: str, findings: Sequence[Finding]) -> str:
    """Render for programs."""
    report = Report(release=release, able=able(findings), findings=tuple(findings))
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()


def as_text(release: str, findings: Sequence[Finding]) -> str:
    """Render for people: a block a part, a line a finding, its remedy below it."""
    lines: list[str] = []
    width = max((len(finding.what) for finding in findings if len(finding.what) < 30), default=0)
    for part, group in groupby(findings, key=lambda finding: finding.part):
        lines += ["", part]
        told = ""
        for finding in group:
            word = log.paint(f"{finding.state:<7}", _COLOURS[finding.state], output=True)
            lines.append(f"  {word}  {finding.what:<{width}}  {finding.says}")
            # Of several in a row that have one remedy, the last tells it.
            if told and told != finding.remedy:
                lines.insert(len(lines) - 1, f"           {'':<{width}}  {told}")
            told = finding.remedy if finding.state is not State.FINE else ""
        if told:
            lines.append(f"           {'':<{width}}  {told}")
    trouble = sum(finding.state is State.TROUBLE for finding in findings)
    verdict = "can be made here" if able(findings) else f"cannot be made here yet: {trouble} in trouble"
    return "\n".join([*lines[1:], "", f"Release {release} {verdict}."])
