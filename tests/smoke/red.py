"""Run cases on one machine, and say how they went red."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.smoke import prepare
from pipeline.smoke.accelerator import Accelerator
from pipeline.smoke.case import Case, Facts, Host, Limits
from pipeline.smoke.cases import BOOT, pv
from pipeline.smoke.dom0 import BootFiles, HostFiles
from pipeline.smoke.hardware import Direct, Hardware
from pipeline.smoke.plan import Suite
from pipeline.smoke.results import CaseResult, Verdict
from pipeline.smoke.runner import Run, Runner

Maker = Callable[[str], BootFiles]
FAST = (*BOOT[:-1], *(case for case in pv.CASES if case.name == "pv-guest"), BOOT[-1])
SMALL = (384, 192)
"""Memory of the machine and of dom0, in MiB."""
LIMITS = Limits(banner=60, boot=60, command=20, xl=60, power_off=30, total=300)


@dataclasses.dataclass(frozen=True)
class Red:
    """How a run went red: the check, and the seconds from the fault's line on serial to QEMU's end."""

    case: CaseResult
    delay: float
    seconds: float
    attempt: Run


def run(
    files: BootFiles | HostFiles,
    accelerator: Accelerator,
    folder: Path,
    *,
    version: str = "any",
    limits: Limits = LIMITS,
    memory: tuple[int, int] = SMALL,
    cases: Sequence[Case] = FAST,
    fault: str = "",
    package: frozenset[str] = frozenset(),
) -> Red:
    if isinstance(files, HostFiles):
        hardware = prepare.hardware(files, folder / "boot", folder / "kept", Suite((), ()))
    else:
        hardware = Hardware(Direct.write(files, folder / "boot", memory[1]), memory[0])
    runner = Runner(Facts(version, accelerator, package=package), limits, folder / "machines")
    attempt = asyncio.run(runner.in_order(hardware, cases))
    red = [case for case in attempt.cases if case.verdict not in (Verdict.PASS, Verdict.SKIPPED)]
    assert red, attempt.cases
    stamps = [
        float(match[1])
        for line in attempt.serial.getvalue().decode().splitlines()
        if fault and fault in line and (match := re.match(r"\[ *([\d.]+)\]", line))
    ]
    assert not fault or stamps, attempt.serial.getvalue().decode()[-3000:]
    return Red(red[0], attempt.seconds - stamps[0] if stamps else 0.0, attempt.seconds, attempt)


async def any_banner(host: Host) -> str:
    return await host.machine.wait_banner(host.limits.banner)


# A hypervisor of any version will do where the fault comes later.
FROM_DOM0 = (Case("xen-banner", "any Xen", any_banner, vital=True), *FAST[1:])


def verdicts(attempt: Run) -> dict[str, str]:
    return {case.name: case.failure or case.verdict for case in attempt.cases}
