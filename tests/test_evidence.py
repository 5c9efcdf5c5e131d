"""Evidence: what ships packages must never take them for proven when they are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import evidence
from pipeline.evidence import Evidence, Kind, UnprovenError, require

PACKAGES = {"small-1-1-any.pkg.tar.xz": "a" * 64, "small-docs-1-1-any.pkg.tar.xz": "b" * 64}


def some(kind: Kind, *, passed: bool = True, packages: dict[str, str] = PACKAGES) -> Evidence:
    return Evidence(
        kind=kind,
        packages=packages,
        passed=passed,
        summary="nothing found" if passed else "xl hangs",
        tools={"qemu": "7.2"},
        finished=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        key="c" * 64,
    )


@pytest.fixture
def proven(tmp_path: Path) -> Path:
    for kind in Kind:
        evidence.write(tmp_path, some(kind))
    return tmp_path


def test_whole_evidence_is_enough(proven: Path) -> None:
    """Or nothing could ever be shipped."""
    assert [e.kind for e in require(proven, PACKAGES)] == list(Kind)
    name = next(iter(PACKAGES))
    assert len(require(proven, {name: PACKAGES[name]})) == len(Kind)


def test_the_time_is_written_as_other_programs_read_it(proven: Path) -> None:
    """The record is read by people and by jq."""
    text = json.loads(evidence.path(proven, Kind.SMOKE).read_text())
    assert text["finished"] == "2026-01-02T03:04:05Z"


def replace(old: str, new: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return edit


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (Path.unlink, "There is no evidence of smoke"),
        (lambda p: p.write_bytes(b""), r"smoke\.json is damaged"),
        (lambda p: p.write_bytes(p.read_bytes()[:-9]), r"smoke\.json is damaged"),
        (lambda p: p.write_bytes(b"\xff" * 20), r"smoke\.json is damaged"),
        (lambda p: p.write_bytes(b" " * (2 << 20)), r"smoke\.json is larger"),
        (lambda p: p.write_bytes(p.with_name("check.json").read_bytes()), "evidence of another step: check"),
        (replace("a" * 64, "d" * 64), "about other bytes of small-1-1-any"),
        (replace('"small-1-1-any', '"other-1-1-any'), "about other bytes of small-1-1-any"),
        (replace("true", "false"), "Smoke failed: nothing found"),
        (replace('"passed"', '"past"'), r"smoke\.json is damaged"),
    ],
)
def test_every_lie_is_named(proven: Path, fault: Callable[[Path], None], problem: str) -> None:
    """Otherwise bytes that nobody has tried would reach users."""
    fault(evidence.path(proven, Kind.SMOKE))
    with pytest.raises(UnprovenError, match=problem):
        require(proven, PACKAGES)


def test_all_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    """A maintainer does not want to hear of it bit by bit."""
    with pytest.raises(UnprovenError, match=r"check.*reproduce.*smoke"):
        require(tmp_path, PACKAGES)


@given(data=st.binary(max_size=300))
def test_whatever_the_file_holds_ends_in_a_sentence(data: bytes) -> None:
    """Evidence comes from other machines too."""
    with pytest.raises(UnprovenError):
        evidence.decode(Path("smoke.json"), data, Kind.SMOKE)
