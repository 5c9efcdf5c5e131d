"""The words of ./inv smoke: which cases they choose, and that wrong ones are told."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.smoke.choice import Choice
from tests.smoke.xtf.framework import write_test


@pytest.fixture
def xtf(tmp_path: Path) -> str:
    write_test(tmp_path, "example", category="special", environments=("pv64", "hvm64"))
    write_test(tmp_path, "xsa-7", b"kernel", category="xsa")
    return str(tmp_path)


def test_only_all_of_the_fast_tier_is_evidence(xtf: str) -> None:
    """If this fails, one case that passes lets a package be published."""
    assert Choice("fast").is_evidence
    assert not Choice("fast", ("xl-list",)).is_evidence
    assert not Choice("xtf", xtf=xtf).is_evidence
    assert not Choice("guests", guests=("guest.cfg",)).is_evidence
    folders = {Choice("fast", ("x",)).folder, Choice("xtf", xtf=xtf).folder, Choice("guests").folder, "smoke"}
    assert len(folders) == 4


def test_words_of_xtf_choose_its_tests(xtf: str) -> None:
    """If this fails, other tests run than were asked for."""
    suite = Choice("xtf", (), xtf).open()
    assert [case.name for case in suite.guests] == ["test-pv64-xsa-7"]
    assert suite.goods["xtf/xsa-7/test-pv64-xsa-7"].data == b"kernel"  # type: ignore[union-attr]
    config = suite.goods["xtf/xsa-7/test-pv64-xsa-7.cfg"].data  # type: ignore[union-attr]
    assert b'kernel="/usr/lib/smoke/goods/xtf/xsa-7/test-pv64-xsa-7"' in config
    both = Choice("xtf", ("example",), xtf).open()
    assert [case.name for case in both.guests] == ["test-hvm64-example", "test-pv64-example"]


@pytest.mark.parametrize(
    "choice",
    [
        Choice("slow"),
        Choice("fast", ("no-such-case",)),
        Choice("fast", xtf="/tmp"),
        Choice("fast", lists=("list.toml",)),
        Choice("xtf"),
        Choice("xtf", xtf="/nonexistent"),
        Choice("xtf", ("nothing",), "XTF"),
        Choice("xtf", ("example", "xsa"), "XTF"),
        Choice("xtf", lists=("/nonexistent",), xtf="XTF"),
        Choice("xtf", xtf="XTF", says="login:"),
        Choice("fast", guests=("guest.cfg",)),
        Choice("full", guests=("guest.cfg",)),
        Choice("guests"),
        Choice("guests", guests=("/nonexistent",)),
        Choice("guests", xtf="XTF"),
    ],
)
def test_words_that_do_not_fit_are_wrong_use(choice: Choice, xtf: str) -> None:
    """If this fails, a typing error runs something else, or nothing, and that looks like success."""
    real = dataclasses.replace(choice, xtf=choice.xtf.replace("XTF", xtf))
    with pytest.raises(UsageError):
        real.open()


@pytest.mark.parametrize(
    ("suite", "cases"),
    [
        ("fast", ()),
        ("fast", ("xl-list", "xl-info")),
        ("xtf", ()),
        ("xtf", ("example",)),
        ("xtf", ("xsa", "pv")),
    ],
)
def test_attach_needs_one_case(suite: str, cases: tuple[str, ...], xtf: str) -> None:
    """If this fails, --attach waits at a machine that nobody asked for."""
    choice = Choice(suite, cases, xtf if suite == "xtf" else "", attach=True)
    with pytest.raises(UsageError, match="one --case"):
        choice.terminal(choice.open())


def test_attach_takes_words_that_mean_one_test(xtf: str) -> None:
    """If this fails, the short name of an XTF test cannot be attached to."""
    choice = Choice("xtf", ("pv64-example",), xtf, attach=True)
    # Pytest's own standard input is none: the next thing that is asked for.
    with pytest.raises(UsageError, match="needs a terminal"):
        choice.terminal(choice.open())


def test_the_same_suite_again(xtf: str) -> None:
    """If this fails, the command beside a red test makes another one, or none."""
    assert Choice("fast", ("xl-list",)).words == []
    assert Choice("xtf", ("x",), "my xtf", ("a", "b")).words == [
        *("--suite", "xtf", "--xtf", "my xtf", "--known", "a", "--known", "b")
    ]
    assert Choice("guests", guests=("a.cfg", "b.cfg"), says="ready").words == [
        *("--suite", "guests", "--guest", "a.cfg", "--guest", "b.cfg", "--says", "ready")
    ]


@pytest.mark.parametrize("cases", [(), ("one", "other")])
def test_attach_to_a_whole_host_needs_one_case(cases: tuple[str, ...]) -> None:
    """If this fails, the command beside a red case of the full tier is refused, or waits at any machine."""
    with pytest.raises(UsageError, match="one --case"):
        Choice("full", cases, attach=True).terminal()
    one = Choice("full", ("boot",), attach=True)
    assert one.on_host
    with pytest.raises(UsageError, match="needs a terminal"):
        one.terminal()
