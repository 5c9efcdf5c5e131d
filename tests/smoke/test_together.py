"""Several cases on one machine: what a machine's end leaves undone is made on another."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.smoke.accelerator import Accelerator, Kind
from pipeline.smoke.case import Case, Facts, Host, Limits
from pipeline.smoke.hardware import Direct, Hardware
from pipeline.smoke.results import CaseResult, Verdict
from pipeline.smoke.runner import Hook, Run, Runner

NOTHING = Path("/nonexistent")
HARDWARE = Hardware(Direct(NOTHING, NOTHING, None))


async def never(_: Host) -> str:
    raise AssertionError


@dataclass(frozen=True)
class Machines(Runner):
    """A runner that knows beforehand which cases end their machine, and whether by the test bed's fault."""

    ends: Mapping[str, Verdict] = field(default_factory=dict)
    batches: list[list[str]] = field(default_factory=list)

    async def in_order(
        self,
        hardware: Hardware,
        cases: Sequence[Case],
        saved: Path | None = None,
        after: Mapping[str, Hook] | None = None,
        kept: Path | None = None,
    ) -> Run:
        await asyncio.sleep(0)
        self.batches.append([case.name for case in cases])
        run, over = Run(), False
        for case in cases:
            verdict = Verdict.SKIPPED if over else self.ends.get(case.name, Verdict.PASS)
            if verdict is Verdict.INFRASTRUCTURE and saved is None:
                verdict = Verdict.PASS
            over = over or case.name in self.ends
            run.cases.append(
                CaseResult(name=case.name, title="", verdict=verdict, failure=None if verdict else "x")
            )
        return run


def made(count: int, size: int, cores: int, ends: Mapping[str, Verdict]) -> tuple[list[CaseResult], Machines]:
    facts = Facts("4.17.5", Accelerator(Kind.TCG, "no KVM here"))
    runner = Machines(facts, Limits(), NOTHING, cores, ends=ends)
    cases = [Case(str(number), "", never) for number in range(count)]
    runs = asyncio.run(runner.together(HARDWARE, cases, NOTHING, size))
    return [case for run in runs for case in run.cases], runner


ENDS = st.dictionaries(
    st.integers(0, 20).map(str), st.sampled_from([Verdict.FAIL, Verdict.PASS, Verdict.INFRASTRUCTURE])
)


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(1, 8), st.integers(1, 4), ENDS)
def test_every_case_is_made_once(count: int, size: int, cores: int, ends: dict[str, Verdict]) -> None:
    """If this fails, a test that takes Xen down takes others with it, or some are made twice."""
    results, runner = made(count, size, cores, ends)
    assert sorted(result.name for result in results) == sorted(str(number) for number in range(count))
    for result in results:
        # The test bed's fault is not the case's: it is made again, after a cold boot.
        fault = ends.get(result.name, Verdict.PASS)
        assert result.verdict is (Verdict.PASS if fault is Verdict.INFRASTRUCTURE else fault)
    assert all(len(batch) <= size for batch in runner.batches)


def test_cases_are_shared_out_to_all_cores() -> None:
    """If this fails, one core makes all of a few cases, and the other none."""
    _, runner = made(6, 10, 2, {})
    assert runner.batches == [["0", "1", "2"], ["3", "4", "5"]]
