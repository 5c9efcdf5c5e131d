"""Cases that begin with a running guest, and the case that brings it up for them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from pipeline.smoke.accelerator import Accelerator, Kind
from pipeline.smoke.case import Facts, Limits
from pipeline.smoke.fast import FastTier
from pipeline.smoke.hardware import Direct, Hardware
from pipeline.smoke.results import Verdict, overall
from pipeline.smoke.snapshot import Snapshots
from pipeline.smoke.suite import fast
from tests.smoke.test_together import Machines


def test_a_guest_that_does_not_come_up_is_the_failure(tmp_path: Path) -> None:
    """If this fails, a case made alone blames the test bed where the package's guest did not start."""
    for name in ("xen", "kernel"):
        (tmp_path / name).write_text(name)
    facts = Facts("4.17.5", Accelerator(Kind.TCG, "no KVM here"))
    runner = Machines(facts, Limits(), tmp_path, 2, ends={"pv-devices": Verdict.FAIL})
    hardware = Hardware(Direct(tmp_path / "xen", tmp_path / "kernel", None))
    tier = FastTier(runner, hardware, Snapshots(tmp_path / "saved"), "QEMU 7.2")
    (tmp_path / "saved" / tier.key).mkdir(parents=True)
    (tmp_path / "saved" / tier.key / "record.json").write_bytes(
        msgspec.json.encode({"key": tier.key, "files": {}})
    )
    asyncio.run(tier.make(fast(["xl-pause", "pv-guest"])))
    cases, _ = tier.collect(lambda _: ())
    assert {case.name: case.verdict for case in cases} == {
        "pv-devices": Verdict.FAIL,
        "xl-pause": Verdict.SKIPPED,
        "pv-guest": Verdict.PASS,
    }
    assert overall(cases) is Verdict.FAIL
