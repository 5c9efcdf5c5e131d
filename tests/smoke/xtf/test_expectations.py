"""The list of what cannot succeed here."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import PipelineError, UsageError
from pipeline.smoke.accelerator import Kind
from pipeline.smoke.errors import BrokenCaseError, NotApplicableError
from pipeline.smoke.xtf.cases import Ended, UnexpectedPassError, XtfCrashError, XtfFailureError, judge
from pipeline.smoke.xtf.catalog import ENVIRONMENTS, Instance
from pipeline.smoke.xtf.expectations import (
    Circumstances,
    Expectation,
    Expectations,
)
from pipeline.smoke.xtf.outcome import Outcome

HERE = Circumstances(xen=(4, 17), qemu=(7, 2), accelerator=Kind.TCG)
ENTRY = """
[[expected]]
tests = ["test-pv64-*", "test-hvm32-xsa-7"]
outcome = "crash"
reason = "It is so under emulation."
"""


def listed(tmp_path: Path, text: str) -> Expectations:
    (tmp_path / "list.toml").write_text(text)
    return Expectations.read([tmp_path / "list.toml"])


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("", True),
        ('accelerator = "tcg"', True),
        ('accelerator = "kvm"', False),
        ('since = "4.17"', True),
        ('since = "4.18"', False),
        ('before = "4.17"', False),
        ('before = "4.20"', True),
        ('qemu_before = "8.0"', True),
        ('qemu_before = "7.2"', False),
        ('qemu_before = "10.0"', True),
        ('since = "4.2"\nbefore = "4.18"\naccelerator = "tcg"', True),
    ],
)
def test_an_entry_holds_under_its_circumstances(tmp_path: Path, condition: str, holds: bool) -> None:
    """If this fails, a failure is excused where its reason does not hold."""
    expected = listed(tmp_path, ENTRY + condition).under(HERE)
    assert (expected.of(Instance("xsa-1", "pv64")) is not None) == holds


def test_an_entry_is_about_the_tests_that_it_names(tmp_path: Path) -> None:
    """If this fails, one entry excuses others' failures."""
    expected = listed(tmp_path, ENTRY)
    assert expected.of(Instance("xsa-7", "hvm32"))
    assert expected.of(Instance("pv-iopl", "pv64", "vmassist"))
    assert expected.of(Instance("xsa-77", "hvm32")) is None
    assert expected.of(Instance("xsa-7", "hvm32", "hap")) is None
    assert expected.of(Instance("xsa-7", "pv32pae")) is None


def test_an_entry_leaves_out_what_it_says(tmp_path: Path) -> None:
    """If this fails, a whole environment cannot be listed without those of its tests that succeed."""
    expected = listed(tmp_path, ENTRY + 'but = ["test-pv64-*~shadow"]')
    assert expected.of(Instance("invlpg", "pv64", "hap"))
    assert expected.of(Instance("invlpg", "pv64", "shadow")) is None


def test_entries_about_no_test_are_found(tmp_path: Path) -> None:
    """If this fails, entries stay for ever after their test is gone."""
    assert listed(tmp_path, ENTRY).stale([Instance("xsa-1", "pv64")]) == ["test-hvm32-xsa-7"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('outcome = "crash"', 'outcome = "success"'),
        ('outcome = "crash"', 'outcome = "bad"'),
        ('outcome = "crash"', ""),
        ('reason = "It is so under emulation."', ""),
        ('reason = "It is so under emulation."', 'reason = ""'),
        ("tests =", "test ="),
        ('"test-pv64-*"', '"pv64-*"'),
        ('outcome = "crash"', 'outcome = "crash"\nsince = "4"'),
    ],
)
def test_a_mistake_in_the_list_is_told(tmp_path: Path, old: str, new: str) -> None:
    """If this fails, an entry with a typing error excuses nothing, or everything."""
    with pytest.raises(UsageError, match=r"list\.toml"):
        listed(tmp_path, ENTRY.replace(old, new))


def test_the_projects_own_list_is_sound() -> None:
    """If this fails, the list does not load, or an entry hides another that is about the same test."""
    own = Expectations.read()
    assert own.entries
    for entry in own.entries:
        for pattern in entry.tests:
            assert pattern.removeprefix("test-").partition("-")[0] in ENVIRONMENTS
    patterns = [(pattern, entry.since, entry.before) for entry in own.entries for pattern in entry.tests]
    assert len(patterns) == len(set(patterns))


def entry(outcome: Outcome) -> Expectation:
    return Expectation(tests=("test-pv64-x",), outcome=outcome, reason="The processor cannot do that.")


def test_outcomes_are_judged() -> None:
    """If this fails, a failure passes, a success fails, or a reason is not told."""
    assert judge(Ended(Outcome.SUCCESS, "Test result: SUCCESS"), None) == "Test result: SUCCESS"
    wrong: dict[Outcome, type[PipelineError]] = {
        Outcome.SKIP: NotApplicableError,
        Outcome.ERROR: BrokenCaseError,
        Outcome.FAILURE: XtfFailureError,
        Outcome.CRASH: XtfCrashError,
    }
    for outcome, error in wrong.items():
        with pytest.raises(error) as raised:
            judge(Ended(outcome, "the line"), None)
        assert "the line" in raised.value.message
        assert type(raised.value) is error
        with pytest.raises(NotApplicableError, match=r"as expected .*The processor cannot do that\."):
            judge(Ended(outcome, "the line"), entry(outcome))
        with pytest.raises(UnexpectedPassError, match="The processor cannot do that"):
            judge(Ended(Outcome.SUCCESS, "the line"), entry(outcome))
    # Bad in another way than expected is no excuse.
    with pytest.raises(XtfFailureError, match="expects crash"):
        judge(Ended(Outcome.FAILURE, "the line"), entry(Outcome.CRASH))
