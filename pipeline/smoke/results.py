"""What a smoke run found, and how it is written down: JUnit for CI, JSON for evidence."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from pipeline.errors import ExitStatus
from pipeline.files import write_bytes
from pipeline.smoke.accelerator import Accelerator

JUNIT, JSON, SERIAL, DOM0_LOG = "results.xml", "results.json", "serial.log", "dom0.log"
"""The files of a run, in its output folder."""
MAX_ATTEMPTS = 2
"""Boots of a run at the most, where the test bed fails."""


class Verdict(StrEnum):
    """How a check, or a run as a whole, came out."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    INFRASTRUCTURE = "infrastructure"
    SKIPPED = "skipped"

    @property
    def status(self) -> ExitStatus:
        """The exit status that a command ends with on this verdict."""
        return {
            Verdict.PASS: ExitStatus.FINE,
            Verdict.FAIL: ExitStatus.FAILED,
            Verdict.INFRASTRUCTURE: ExitStatus.HOST,
            Verdict.SKIPPED: ExitStatus.HOST,
        }[self]


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """One check; ``failure`` is the class of the failure, ``begin`` and ``seconds`` are seconds."""

    name: str
    title: str
    verdict: Verdict
    evidence: str = ""
    failure: str | None = None
    detail: str = ""
    begin: float = 0.0
    seconds: float = 0.0


class Input(msgspec.Struct, frozen=True):
    """A file, or a part made from files, that the run depends on."""

    name: str
    size: int
    sha256: str


class SmokeResult(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. ``started`` is in UTC, ISO 8601; ``timings`` are seconds by name of the phase."""

    format: int = 1
    verdict: Verdict
    xen_version: str
    xen_found: str | None
    checks: tuple[CheckResult, ...]
    accelerator: Accelerator
    qemu_version: str
    qemu_command: tuple[str, ...]
    events: tuple[str, ...]
    inputs: tuple[Input, ...]
    attempts: int
    started: str
    timings: dict[str, float]

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The checks that did not pass and were not skipped."""
        return tuple(c for c in self.checks if c.verdict in (Verdict.FAIL, Verdict.INFRASTRUCTURE))


def overall(checks: tuple[CheckResult, ...]) -> Verdict:
    """Return the verdict of a run; only what was checked and passed in full is a pass."""
    verdicts = {check.verdict for check in checks}
    for verdict in (Verdict.FAIL, Verdict.INFRASTRUCTURE):
        if verdict in verdicts:
            return verdict
    return Verdict.PASS if verdicts == {Verdict.PASS} else Verdict.INFRASTRUCTURE


def read(path: Path) -> SmokeResult:
    """Read a results.json; raises msgspec.ValidationError for one that is not."""
    return msgspec.json.decode(path.read_bytes(), type=SmokeResult)


def write(result: SmokeResult, output: Path, serials: Sequence[bytes], dom0_log: str) -> None:
    """Write a run's files; results.json goes first and comes last, so that it never lies alone.

    ``serials`` has the log of each attempt; the last one's is serial.log, the first's serial.1.log.
    """
    output.mkdir(parents=True, exist_ok=True)
    (output / JSON).unlink(missing_ok=True)
    for number in range(1, MAX_ATTEMPTS):
        # Of an earlier run in the same folder, that needed more attempts than this one.
        (output / f"serial.{number}.log").unlink(missing_ok=True)
    for number, serial in enumerate(serials, start=1):
        write_bytes(output / (SERIAL if number == len(serials) else f"serial.{number}.log"), serial)
    write_bytes(output / DOM0_LOG, dom0_log.encode(errors="replace"))
    write_bytes(output / JUNIT, junit(result))
    write_bytes(output / JSON, msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")


def junit(result: SmokeResult) -> bytes:
    """Render a run as JUnit XML, a test case each check."""
    counts = [check.verdict for check in result.checks]
    suite = ET.Element(
        "testsuite",
        name="smoke",
        timestamp=result.started,
        tests=str(len(counts)),
        failures=str(counts.count(Verdict.FAIL)),
        errors=str(counts.count(Verdict.INFRASTRUCTURE)),
        skipped=str(counts.count(Verdict.SKIPPED)),
        time=f"{result.timings.get('total', 0):.3f}",
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in (
        ("accelerator", f"{result.accelerator.kind}: {result.accelerator.reason}"),
        ("qemu", result.qemu_version),
        *((f"sha256 of {part.name}", part.sha256) for part in result.inputs),
    ):
        ET.SubElement(properties, "property", name=_clean(name), value=_clean(value))
    for check in result.checks:
        case = ET.SubElement(
            suite, "testcase", classname="smoke", name=check.name, time=f"{check.seconds:.3f}"
        )
        tag = {
            Verdict.FAIL: "failure",
            Verdict.INFRASTRUCTURE: "error",
            Verdict.SKIPPED: "skipped",
        }.get(check.verdict)
        if tag is not None:
            message, kind = _clean(check.evidence), check.failure or ""
            ET.SubElement(case, tag, message=message, type=kind).text = _clean(check.detail)
    root = ET.Element("testsuites")
    root.append(suite)
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode").encode()


def _clean(text: str) -> str:
    """Replace what XML 1.0 cannot hold, whatever the machine under test printed."""
    return "".join(
        c if c in "\t\n" or (c.isprintable() and c not in "\ufffe\uffff") else "\ufffd" for c in text
    )
