"""What a smoke run found, and how it is written down: JUnit for CI, JSON for evidence."""

from __future__ import annotations

import shlex
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from pipeline.errors import ExitStatus
from pipeline.files import write_bytes
from pipeline.smoke.accelerator import Accelerator
from pipeline.smoke.case import Tier

JUNIT, JSON, SERIAL, DOM0_LOG = "results.xml", "results.json", "serial.log", "dom0.log"
"""The files of a run, in its output folder."""
CASES = "cases"
"""The folder, in that, with a folder for each case that had a machine of its own or kept something."""
MAX_ATTEMPTS = 2
"""Boots of a run at the most, where the test bed fails."""


class Verdict(StrEnum):
    """How a case, or a run as a whole, came out."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    ERROR = "error"
    """The case itself is at fault, and says nothing of the package."""
    INFRASTRUCTURE = "infrastructure"
    SKIPPED = "skipped"
    """Not made, because something before it failed."""
    NOT_APPLICABLE = "not applicable"
    """Cannot be made with this package or on this host; ``evidence`` says why."""

    @classmethod
    def bad(cls) -> tuple[Verdict, ...]:
        """Those of which one is enough to make a run that, the worst first."""
        return cls.FAIL, cls.ERROR, cls.INFRASTRUCTURE

    @property
    def status(self) -> ExitStatus:
        """The exit status that a command ends with on this verdict."""
        return {
            Verdict.PASS: ExitStatus.FINE,
            Verdict.FAIL: ExitStatus.FAILED,
            Verdict.ERROR: ExitStatus.FAILED,
            Verdict.INFRASTRUCTURE: ExitStatus.HOST,
            Verdict.SKIPPED: ExitStatus.HOST,
            Verdict.NOT_APPLICABLE: ExitStatus.FINE,
        }[self]


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """One case. ``failure`` is the class of the failure, ``file`` the package's file that it points to.

    ``begin`` is when it began, in seconds since its machine was started, and ``seconds`` how long it took;
    ``cpu`` the processor's seconds that QEMU took for it. ``logs`` are files in the output folder, ``rerun``
    the command that makes this case alone.
    """

    name: str
    title: str
    verdict: Verdict
    tier: Tier = Tier.FAST
    evidence: str = ""
    failure: str | None = None
    file: str | None = None
    detail: str = ""
    begin: float = 0.0
    seconds: float = 0.0
    cpu: float = 0.0
    restored: bool = False
    attempts: int = 1
    logs: tuple[str, ...] = ()
    rerun: tuple[str, ...] = ()


class Input(msgspec.Struct, frozen=True):
    """A file, or a part made from files, that the run depends on."""

    name: str
    size: int
    sha256: str


class SmokeResult(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. ``started`` is in UTC, ISO 8601; ``timings`` are seconds by name of the phase.

    ``attempts`` counts the cold boots; ``snapshot`` is the key of the one that cases started from; ``notes``
    are sentences on the run as a whole.
    """

    format: int = 2
    verdict: Verdict
    xen_version: str
    xen_found: str | None
    cases: tuple[CaseResult, ...]
    accelerator: Accelerator
    qemu_version: str
    qemu_command: tuple[str, ...]
    events: tuple[str, ...]
    inputs: tuple[Input, ...]
    attempts: int
    snapshot: str | None
    started: str
    timings: dict[str, float]
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """How many cases passed and how many were none, in one line."""
        passed, none = (
            sum(c.verdict is verdict for c in self.cases)
            for verdict in (Verdict.PASS, Verdict.NOT_APPLICABLE)
        )
        more = f", {none} not applicable" if none else ""
        return f"{passed} cases passed under {self.accelerator.kind}{more}"

    @property
    def failures(self) -> tuple[CaseResult, ...]:
        """The cases that did not pass and were not skipped."""
        return tuple(c for c in self.cases if c.verdict in Verdict.bad())


def overall(cases: Sequence[CaseResult]) -> Verdict:
    """Return the verdict of a run; only what was made and passed in full is a pass."""
    verdicts = {case.verdict for case in cases} - {Verdict.NOT_APPLICABLE}
    if cases and not verdicts:
        return Verdict.NOT_APPLICABLE
    for verdict in Verdict.bad():
        if verdict in verdicts:
            return verdict
    return Verdict.PASS if verdicts == {Verdict.PASS} else Verdict.INFRASTRUCTURE


def read(path: Path) -> SmokeResult:
    """Read a results.json; raises msgspec.ValidationError for one that is not."""
    return msgspec.json.decode(path.read_bytes(), type=SmokeResult)


def write(result: SmokeResult, output: Path, logs: Mapping[str, bytes]) -> None:
    """Write a run's files; results.json goes first and comes last, so that it never lies alone.

    ``logs`` are by their path in the output folder.
    """
    output.mkdir(parents=True, exist_ok=True)
    (output / JSON).unlink(missing_ok=True)
    # Of an earlier run in the same folder.
    shutil.rmtree(output / CASES, ignore_errors=True)
    for number in range(1, MAX_ATTEMPTS):
        (output / f"serial.{number}.log").unlink(missing_ok=True)
    for name, data in logs.items():
        write_bytes(output / name, data)
    write_bytes(output / JUNIT, junit(result))
    write_bytes(output / JSON, msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")


def junit(result: SmokeResult) -> bytes:
    """Render a run as JUnit XML, a test case each case."""
    counts = [case.verdict for case in result.cases]
    suite = ET.Element(
        "testsuite",
        name="smoke",
        timestamp=result.started,
        tests=str(len(counts)),
        failures=str(counts.count(Verdict.FAIL)),
        errors=str(counts.count(Verdict.INFRASTRUCTURE) + counts.count(Verdict.ERROR)),
        skipped=str(counts.count(Verdict.SKIPPED) + counts.count(Verdict.NOT_APPLICABLE)),
        time=f"{result.timings.get('total', 0):.3f}",
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in (
        ("accelerator", f"{result.accelerator.kind}: {result.accelerator.reason}"),
        ("qemu", result.qemu_version),
        *((f"sha256 of {part.name}", part.sha256) for part in result.inputs),
    ):
        ET.SubElement(properties, "property", name=_clean(name), value=_clean(value))
    suite.extend(_junit_case(case) for case in result.cases)
    root = ET.Element("testsuites")
    root.append(suite)
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode").encode()


def _junit_case(case: CaseResult) -> ET.Element:
    element = ET.Element(
        "testcase", classname=f"smoke.{case.tier}", name=case.name, time=f"{case.seconds:.3f}"
    )
    tag = {
        Verdict.FAIL: "failure",
        Verdict.ERROR: "error",
        Verdict.INFRASTRUCTURE: "error",
        Verdict.SKIPPED: "skipped",
        Verdict.NOT_APPLICABLE: "skipped",
    }.get(case.verdict)
    if tag is not None:
        kind = case.failure or case.verdict
        ET.SubElement(element, tag, message=_clean(case.evidence), type=kind).text = _clean(case.detail)
    about = [f"file: /{case.file}"] if case.file else []
    about += [f"log: {name}" for name in case.logs]
    about += [f"again: {shlex.join(case.rerun)}"] if case.rerun else []
    if about:
        ET.SubElement(element, "system-out").text = _clean("\n".join(about))
    return element


def _clean(text: str) -> str:
    """Replace what XML 1.0 cannot hold, whatever the machine under test printed."""
    return "".join(
        c if c in "\t\n" or (c.isprintable() and c not in "\ufffe\uffff") else "\ufffd" for c in text
    )
