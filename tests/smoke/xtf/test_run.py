"""Tests of XTF on a real machine: guests that xl creates, judged by what their consoles say."""

from __future__ import annotations

import contextlib
import os
import pty
import threading
import time
from pathlib import Path

import junitparser
import pytest

from pipeline.smoke.attach import LEAVE, Terminal
from pipeline.smoke.page import PAGE
from pipeline.smoke.results import SmokeResult, Verdict
from pipeline.smoke.suite import smoke
from pipeline.smoke.xtf.suite import xtf
from tests.smoke.xtf.framework import pv_kernel, write_test

pytestmark = pytest.mark.integration

LIST = """
[[expected]]
tests = ["test-pv64-listed"]
outcome = "failure"
reason = "This kernel says so, whatever runs it."

[[expected]]
tests = ["test-pv64-better", "test-pv64-gone"]
outcome = "crash"
reason = "It was so with an older machine."
"""
SAID = {
    "fine": "Test result: SUCCESS",
    "red": "Test result: FAILURE",
    "odd": "Test result: ERROR",
    "absent": "Test result: SKIP",
    "listed": "Test result: FAILURE",
    "better": "Test result: SUCCESS",
    "silent": "I have nothing to say",
}
WANTED = {
    "test-pv64-fine": ("pass", None),
    "test-pv64-red": ("fail", "XtfFailureError"),
    "test-pv64-odd": ("error", "BrokenCaseError"),
    "test-pv64-absent": ("not applicable", None),
    "test-pv64-listed": ("not applicable", None),
    "test-pv64-better": ("fail", "UnexpectedPassError"),
    "test-pv64-silent": ("fail", "XtfCrashError"),
    "test-pv64-unbuilt": ("error", "BrokenCaseError"),
    # The release is built without 32-bit PV guests, and the project's list knows.
    "test-pv32pae-fine": ("not applicable", None),
}


class User:
    """Somebody at a pseudo-terminal who asks dom0's shell something, and leaves when all is over."""

    def __init__(self) -> None:
        self.end, theirs = pty.openpty()
        self.terminal = Terminal("test-pv64-fine", theirs, theirs)
        self.seen = b""
        self._thread = threading.Thread(target=self._use, daemon=True)
        self._thread.start()

    def _use(self) -> None:
        # No shell would print the answer before it has worked it out.
        for wanted, typed in ((b"Enter for a shell", b"\r"), (b"# ", b"echo $((6 * 7))-a-shell\r")):
            self._await(wanted)
            os.write(self.end, typed)
        self._await(b"42-a-shell")
        self._await(b"is over")
        os.write(self.end, LEAVE)

    def _await(self, wanted: bytes) -> None:
        end = time.monotonic() + 600
        while wanted not in self.seen and time.monotonic() < end:
            with contextlib.suppress(OSError):
                self.seen += os.read(self.end, 4096)


@pytest.fixture(scope="module")
def user() -> User:
    return User()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built framework with a test of each kind, a list of what is expected, and the results of a run."""
    place = tmp_path_factory.mktemp("a framework, built")
    for name, said in SAID.items():
        environments = ("pv64", "pv32pae") if name == "fine" else ("pv64",)
        write_test(place, name, pv_kernel(said), environments=environments)
    write_test(place, "unbuilt")
    (place / "tests/unbuilt/test-pv64-unbuilt").unlink()
    (place / "list.toml").write_text(LIST)
    return place


@pytest.fixture(scope="module")
def result(
    xen_packages: list[Path],
    kernel_deb: Path,
    supply_debs: dict[str, Path],
    image_root: Path,
    folder: Path,
    user: User,
) -> SmokeResult:
    return smoke(
        xen_packages,
        image_root=image_root,
        kernel=kernel_deb,
        supplies=supply_debs,
        xen_version="4.17.5",
        output=folder / "out",
        scratch=folder / "scratch",
        suite=xtf(folder, (), [folder / "list.toml"]),
        rerun=lambda case: ("./inv", "smoke", "--suite", "xtf", "--case", case),
        terminal=user.terminal,
    )


def verdicts(result: SmokeResult, folder: Path) -> None:
    """Each outcome has its verdict, in JUnit too."""
    found = {case.name: (case.verdict.value, case.failure) for case in result.cases}
    assert found == WANTED, [(case.name, case.evidence, case.detail) for case in result.cases]
    suite = next(iter(junitparser.JUnitXml.fromfile(str(folder / "out/results.xml"))))
    kinds = {case.name: [type(r).__name__ for r in case.result] for case in suite}
    kind = {"pass": [], "fail": ["Failure"], "error": ["Error"], "not applicable": ["Skipped"]}
    assert kinds == {name: kind[verdict] for name, (verdict, _) in WANTED.items()}


def consoles(result: SmokeResult, folder: Path) -> None:
    """Why a test failed, or why another one may, can be seen."""
    cases = {case.name: case for case in result.cases}
    for name, said in SAID.items():
        assert f"cases/test-pv64-{name}/console.log" in cases[f"test-pv64-{name}"].logs
        assert said in (folder / f"out/cases/test-pv64-{name}/console.log").read_text()
    assert "whatever runs it" in cases["test-pv64-listed"].evidence
    assert "I have nothing to say" in cases["test-pv64-silent"].evidence
    assert "test-pv64-unbuilt" in cases["test-pv64-unbuilt"].evidence
    assert "pv32" in cases["test-pv32pae-fine"].evidence
    page = (folder / "out" / PAGE).read_text()
    assert "./inv smoke --suite xtf --case test-pv64-red --attach" in page


def remarks(result: SmokeResult) -> None:
    """A skip that nobody expected is red, and a stale entry of the list is told."""
    assert result.verdict is Verdict.FAIL
    skipped, stale = result.notes
    assert "test-pv64-absent" in skipped
    assert "test-pv64-listed" not in skipped
    assert "test-pv64-gone" in stale


def test_a_framework_runs_by_its_own_rules(result: SmokeResult, folder: Path, user: User) -> None:
    """If this fails, a test that failed passes here, or one that was expected to does not.

    One test, because each worker would make a run of its own.
    """
    verdicts(result, folder)
    consoles(result, folder)
    remarks(result)
    # Without this, --attach shows a console where nothing can be typed.
    assert b"42-a-shell" in user.seen
    assert b"test-pv64-fine is over" in user.seen
