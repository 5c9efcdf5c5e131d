"""The fast tier as it ran on the release that this test run has built: every case, its logs, its command."""

from __future__ import annotations

import hashlib
import shlex

import junitparser
import pytest

from pipeline.smoke import results
from pipeline.smoke.cases import BOOT, GUESTS
from pipeline.smoke.results import SmokeResult, Verdict
from tests.released import Released

pytestmark = pytest.mark.integration

ABSENT = {"pv32-guest"}
"""Not applicable to 4.17, which is built without 32-bit PV guests."""


@pytest.fixture(scope="session")
def smoked(released: Released) -> SmokeResult:
    return results.read(released.folder / "smoke" / results.JSON)


def test_every_case_was_made(smoked: SmokeResult) -> None:
    """If this fails, packages go out with a promise of the wiki page untried, or a silent skip."""
    assert [case.name for case in smoked.cases] == [case.name for case in (*BOOT, *GUESTS)]
    others = {case.name: case for case in smoked.cases if case.verdict is not Verdict.PASS}
    assert others.keys() == ABSENT, others
    assert "without 32-bit PV" in others["pv32-guest"].evidence
    assert smoked.snapshot is not None
    assert any("guest-shutdown" in event for event in smoked.events)


def test_each_guest_started_from_the_snapshot_and_left_its_console(
    released: Released, smoked: SmokeResult
) -> None:
    """If this fails, a failed case cannot be looked into, or cases cost a boot each."""
    output = released.folder / "smoke"
    for case in smoked.cases[len(BOOT) :]:
        if case.verdict is Verdict.PASS:
            assert case.restored, case
            assert any(name.endswith("serial.log") for name in case.logs), case
            assert all((output / name).is_file() for name in case.logs), case
    console = (output / "cases/pv-guest/console.log").read_text()
    assert "SMOKE-GUEST-UP pid=1 hypervisor=xen" in console


def test_a_case_says_how_it_is_made_again(smoked: SmokeResult) -> None:
    """If this fails, a maintainer repeats the whole tier to look at one case."""
    for case in smoked.cases:
        assert shlex.join(case.rerun).endswith(f"--case {case.name}"), case


def test_every_input_is_named_with_its_hash(released: Released, smoked: SmokeResult) -> None:
    """If this fails, nobody can tell what a verdict was about."""
    found = {part.name: part.sha256 for part in smoked.inputs}
    for package in released.packages:
        assert found[package.name] == hashlib.sha256(package.read_bytes()).hexdigest()
    assert {"xen", "kernel", "initramfs"} <= found.keys()


def test_junit_has_a_test_case_each(released: Released, smoked: SmokeResult) -> None:
    """If this fails, CI does not show which case failed."""
    suite = next(iter(junitparser.JUnitXml.fromfile(str(released.folder / "smoke" / results.JUNIT))))
    assert [case.name for case in suite] == [case.name for case in smoked.cases]
    assert (suite.failures, suite.errors, suite.skipped) == (0, 0, len(ABSENT))
