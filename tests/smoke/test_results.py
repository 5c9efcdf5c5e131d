"""Results as others read them: JUnit by junitparser, JSON by its own types."""

from __future__ import annotations

from pathlib import Path

import junitparser
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ExitStatus
from pipeline.smoke import results
from pipeline.smoke.accelerator import Accelerator, Kind
from pipeline.smoke.results import CaseResult, Input, SmokeResult, Verdict


def made(*cases: CaseResult) -> SmokeResult:
    return SmokeResult(
        verdict=results.overall(cases),
        xen_version="4.17.5",
        xen_found=None,
        cases=cases,
        accelerator=Accelerator(Kind.TCG, "The CPU has neither vmx nor svm."),
        qemu_version="QEMU 7.2",
        qemu_command=("qemu-system-x86_64",),
        events=(),
        inputs=(Input("xen.pkg.tar.xz", 1, "0" * 64),),
        attempts=1,
        snapshot=None,
        started="2026-01-01T00:00:00+00:00",
        timings={"total": 1.5},
    )


def check(verdict: Verdict, text: str = "text", name: str = "xl-list") -> CaseResult:
    return CaseResult(
        name=name, title="", verdict=verdict, evidence=text, failure="HangError", detail=text, seconds=2.5
    )


def test_junit_shows_each_verdict_as_its_own_kind(tmp_path: Path) -> None:
    """If this fails, CI shows a failed boot as passed, or as the wrong kind of failure."""
    result = made(*(check(verdict, name=verdict) for verdict in Verdict))
    results.write(result, tmp_path / "out", {"serial.log": b"last", "cases/fail/console.log": b"log"})
    assert (tmp_path / "out/cases/fail/console.log").read_bytes() == b"log"
    suite = next(iter(junitparser.JUnitXml.fromfile(str(tmp_path / "out/results.xml"))))
    kinds = {case.name: [type(r).__name__ for r in case.result] for case in suite}
    assert kinds == {
        "pass": [],
        "fail": ["Failure"],
        "error": ["Error"],
        "infrastructure": ["Error"],
        "skipped": ["Skipped"],
        "not applicable": ["Skipped"],
    }
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (6, 1, 2, 2)


@given(st.text())
def test_junit_survives_whatever_the_machine_prints(text: str) -> None:
    """If this fails, a machine that prints rubbish leaves CI without results."""
    junitparser.JUnitXml.fromstring(results.junit(made(check(Verdict.FAIL, text))))


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    """If this fails, evidence cannot be checked before packages are published."""
    result = made(check(Verdict.PASS))
    results.write(result, tmp_path, {})
    assert results.read(tmp_path / "results.json") == result
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(msgspec.ValidationError):
        results.read(tmp_path / "results.json")


def test_only_all_passed_is_a_pass() -> None:
    """If this fails, a run in which nothing was checked lets packages be published."""
    cases = {
        (): Verdict.INFRASTRUCTURE,
        (Verdict.PASS,): Verdict.PASS,
        (Verdict.NOT_APPLICABLE,): Verdict.NOT_APPLICABLE,
        (Verdict.ERROR, Verdict.PASS): Verdict.ERROR,
        (Verdict.ERROR, Verdict.FAIL): Verdict.FAIL,
        (Verdict.PASS, Verdict.NOT_APPLICABLE): Verdict.PASS,
        (Verdict.PASS, Verdict.SKIPPED): Verdict.INFRASTRUCTURE,
        (Verdict.INFRASTRUCTURE, Verdict.FAIL, Verdict.SKIPPED): Verdict.FAIL,
        (Verdict.PASS, Verdict.INFRASTRUCTURE): Verdict.INFRASTRUCTURE,
    }
    for verdicts, expected in cases.items():
        assert results.overall(tuple(check(verdict) for verdict in verdicts)) is expected
    assert [v.status for v in (Verdict.PASS, Verdict.FAIL, Verdict.INFRASTRUCTURE)] == [
        ExitStatus.FINE,
        ExitStatus.FAILED,
        ExitStatus.HOST,
    ]
