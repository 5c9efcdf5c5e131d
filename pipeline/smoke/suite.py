"""The fast tier: boot packages in a virtual machine, and say what holds.

One cold boot is the boot test. The host that it brings up is saved, and every other case goes on from there
on a machine of its own. ``smoke`` is what the command calls.
"""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipeline import log
from pipeline.errors import UsageError
from pipeline.files import sha256
from pipeline.run import run
from pipeline.scratch import scratch as scratch_folder
from pipeline.smoke import page, prepare, results
from pipeline.smoke.accelerator import Accelerator, choose
from pipeline.smoke.attach import Terminal
from pipeline.smoke.case import Facts, Limits
from pipeline.smoke.cases import BOOT, GUESTS
from pipeline.smoke.dom0 import BootFiles, assemble
from pipeline.smoke.fast import FastTier
from pipeline.smoke.layers import read_packages
from pipeline.smoke.packing import advice
from pipeline.smoke.plan import Suite
from pipeline.smoke.results import Input, SmokeResult, Verdict
from pipeline.smoke.runner import Runner
from pipeline.smoke.snapshot import Snapshots


def smoke(
    packages: Sequence[Path],
    *,
    image_root: Path,
    kernel: Path,
    supplies: Mapping[str, Path],
    xen_version: str,
    output: Path,
    scratch: Path,
    suite: Suite | None = None,
    rerun: Callable[[str], tuple[str, ...]] = lambda _: (),
    limits: Limits | None = None,
    accelerator: Accelerator | None = None,
    terminal: Terminal | None = None,
) -> SmokeResult:
    """Boot packages and make the cases of a suite (the fast tier's); write the evidence to ``output``.

    ``packages`` are .pkg.tar.* files, the one with the hypervisor among them; ``image_root`` an unpacked
    root file system with the libraries that they were built with; ``kernel`` a Debian kernel package,
    ``supplies`` those that supplies.sources names;
    ``xen_version`` what Xen must say that it is. ``scratch`` keeps the unpacked kernel and the snapshots from
    run to run. ``rerun`` returns the command that makes a case alone. ``accelerator`` is chosen by probing
    where it is None. ``terminal`` is attached to the machine of its case.

    Whatever the machine does ends in the result's verdict. Raises PackageContentError,
    KernelImageError or ToolMissingError where no machine can be made.
    """
    begin = time.monotonic()
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    suite = suite or fast()
    with log.step("Assembling the test host from the package"):
        layer = read_packages(packages)
        unpacked = prepare.kernel(kernel, scratch)
        if (line := advice(unpacked.release, unpacked.packing, xen_version)) is not None:
            log.info(line)
        host = assemble(layer, image_root, unpacked, prepare.supplies(supplies, scratch))
    accelerator = accelerator or choose(host.boot.xen)
    log.info(f"accelerator: {accelerator.kind} ({accelerator.reason})")
    version = run(["qemu-system-x86_64", "--version"]).output.splitlines()[0]
    inputs = (*(_input(path) for path in (*packages, kernel, *supplies.values())), *_parts(host.boot))
    # In a folder of its own: what is left there of killed runs is swept away.
    with scratch_folder(scratch / "machines", "smoke") as work:
        hardware = prepare.hardware(host, work / "boot", scratch, suite)
        facts = Facts(xen_version, accelerator, version, host.absent, frozenset(layer.tree))
        runner = Runner(facts, limits or Limits(), work, terminal=terminal)
        # What lies over images that others write to is of this run only.
        kept = work if any(drive.foreign for drive in hardware.drives) else scratch
        tier = FastTier(runner, hardware, Snapshots(kept / "snapshots"), version)
        prepared = time.monotonic() - begin
        asyncio.run(tier.make(suite))
    cases, logs = tier.collect(rerun)
    remarks = suite.remarks()
    result = SmokeResult(
        verdict=Verdict.FAIL if any(remark.red for remark in remarks) else results.overall(cases),
        xen_version=xen_version,
        xen_found=tier.boots[-1].found if tier.boots else None,
        cases=cases,
        accelerator=accelerator,
        qemu_version=version,
        qemu_command=tier.command,
        events=tier.boots[-1].events if tier.boots else (),
        inputs=inputs,
        attempts=len(tier.boots),
        snapshot=tier.key if tier.apart else None,
        started=started,
        timings={
            "prepare": round(prepared, 3),
            "machine": round(sum(boot.seconds for boot in tier.boots[-1:]), 3),
            **{name: round(seconds, 3) for name, seconds in tier.timings.items()},
            "total": round(time.monotonic() - begin, 3),
        },
        notes=tuple(remark.text for remark in remarks),
    )
    results.write(result, output, logs)
    page.write(result, output)
    return result


def fast(only: Sequence[str] = ()) -> Suite:
    """Return the fast tier, or the cases of it that are named, with what those cannot do without.

    Raises UsageError for a name that no case has.
    """
    if not only:
        return Suite(BOOT, GUESTS)
    known = {case.name for case in (*BOOT, *GUESTS)}
    for name in only:
        if name not in known:
            raise UsageError(f"There is no case {name!r}.", hint=f"Cases: {', '.join(sorted(known))}.")
    boot = tuple(case for case in BOOT if case.name in only)
    if boot:
        boot = tuple(case for case in BOOT if case.vital or case.name in only)
    return Suite(boot, tuple(case for case in GUESTS if case.name in only))


def _input(path: Path) -> Input:
    return Input(path.name, path.stat().st_size, sha256(path))


def _parts(files: BootFiles) -> list[Input]:
    sizes = {"xen": files.xen, "kernel": files.kernel, "initramfs": files.initramfs}
    return [Input(name, len(sizes[name]), digest) for name, digest in files.hashes().items()]
