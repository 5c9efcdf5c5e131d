"""The fast tier: boot packages in a virtual machine, and say what holds.

One cold boot is the boot test. The host that it brings up is saved, and every other case goes on from there
on a machine of its own. ``smoke`` is what the command calls.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pipeline import log
from pipeline.errors import UsageError
from pipeline.files import sha256, write_bytes
from pipeline.run import run
from pipeline.scratch import scratch as scratch_folder
from pipeline.smoke import page, results
from pipeline.smoke.accelerator import Accelerator, choose
from pipeline.smoke.attach import Terminal
from pipeline.smoke.case import Case, Facts, Limits
from pipeline.smoke.cases import BOOT, GUESTS
from pipeline.smoke.cases.boot import READY
from pipeline.smoke.cpio import write_newc
from pipeline.smoke.dom0 import MODULES, MODULES_OF_SOME, BootFiles, assemble, find_xen
from pipeline.smoke.hardware import Direct, Hardware
from pipeline.smoke.kernel import Kernel, read_kernel_package
from pipeline.smoke.layers import read_packages
from pipeline.smoke.machine import Machine
from pipeline.smoke.packing import Packing, advice
from pipeline.smoke.plan import GOODS, Suite
from pipeline.smoke.results import (
    CASES,
    DOM0_LOG,
    MAX_ATTEMPTS,
    SERIAL,
    CaseResult,
    Input,
    SmokeResult,
    Verdict,
)
from pipeline.smoke.runner import Run, Runner
from pipeline.smoke.snapshot import Snapshots, snapshot_key

_CACHE_FORMAT = 3


def smoke(
    packages: Sequence[Path],
    *,
    image_root: Path,
    kernel: Path,
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
    root file system with the libraries that they were built with; ``kernel`` a Debian kernel package;
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
        xen = find_xen(layer)
        unpacked = cached_kernel(kernel, scratch)
        if (line := advice(unpacked.release, unpacked.packing, xen_version)) is not None:
            log.info(line)
        files = assemble(layer, image_root, unpacked)
        if suite.goods:
            goods = write_newc({f"{GOODS}/{path}": entry for path, entry in suite.goods.items()})
            files = dataclasses.replace(files, initramfs=files.initramfs + goods)
    accelerator = accelerator or choose(xen)
    log.info(f"accelerator: {accelerator.kind} ({accelerator.reason})")
    version = run(["qemu-system-x86_64", "--version"]).output.splitlines()[0]
    inputs = (*(_input(path) for path in (*packages, kernel)), *_parts(files))
    # In a folder of its own: what is left there of killed runs is swept away.
    with scratch_folder(scratch / "machines", "smoke") as work:
        hardware = Hardware(Direct.write(files, work / "boot"))
        runner = Runner(Facts(xen_version, accelerator, version), limits or Limits(), work, terminal=terminal)
        tier = FastTier(runner, hardware, Snapshots(scratch / "snapshots"), version)
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


@dataclass
class FastTier:
    """The cases of the fast tier on one kind of machine; filled in by `make`."""

    runner: Runner
    hardware: Hardware
    snapshots: Snapshots
    qemu_version: str
    boots: list[Run] = field(default_factory=list)
    apart: list[Run] = field(default_factory=list)
    skipped: list[CaseResult] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)
    timings: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.key = snapshot_key(self.hardware, self.runner.facts.accelerator, self.qemu_version)

    @property
    def command(self) -> tuple[str, ...]:
        """QEMU's command line."""
        return next((run.command for run in (*self.boots, *self.apart) if run.command), ())

    async def make(self, suite: Suite) -> None:
        """Make the boot test, and the cases of guests from the host that it brings up.

        Without a boot test, the host is one that was saved before, or is booted for it.
        """
        self.asked = {case.name for case in suite.boot}
        if not suite.boot and await self._from_saved(suite):
            return
        await self._boot(suite.boot or tuple(case for case in BOOT if case.vital), save=bool(suite.guests))
        if suite.guests and not await self._from_saved(suite):
            reason = "Not made, because the boot failed."
            self.skipped = [_skipped(case, reason) for case in suite.guests]

    async def _boot(self, cases: Sequence[Case], *, save: bool) -> None:
        """Make the boot test; once more, where the test bed failed."""
        for number in range(1, MAX_ATTEMPTS + 1):
            with log.step("Booting Xen"):
                after = {READY: self._save} if save else {}
                self.boots.append(await self.runner.in_order(self.hardware, cases, after=after))
            if not self.boots[-1].broken or number == MAX_ATTEMPTS:
                return
            log.warn("the test bed failed; once more, from a cold start")

    async def _save(self, machine: Machine) -> None:
        begin = time.monotonic()
        await self.snapshots.save(self.key, machine)
        await machine.resume()
        self.timings["save"] = time.monotonic() - begin

    async def _from_saved(self, suite: Suite) -> bool:
        """Make cases from the snapshot; whether there is one."""
        with self.snapshots.use(self.key) as snapshot:
            if snapshot is None:
                return False
            begin = time.monotonic()
            with log.step(f"Guests, {self.runner.cores} at once, from the saved host"):
                first = tuple(case for case in BOOT if case.vital)
                saved = self.hardware, suite.guests, snapshot.folder
                if suite.together > 1:
                    self.apart = await self.runner.together(*saved, suite.together, first)
                else:
                    self.apart = await self.runner.apart(*saved, first)
            self.timings["guests"] = time.monotonic() - begin
        return True

    def collect(
        self, rerun: Callable[[str], tuple[str, ...]]
    ) -> tuple[tuple[CaseResult, ...], dict[str, bytes]]:
        """Return all verdicts, and all logs by their path in the output folder."""
        logs: dict[str, bytes] = {}
        for number, boot in enumerate(self.boots, start=1):
            name = SERIAL if number == len(self.boots) else f"serial.{number}.log"
            logs[name] = boot.serial.getvalue()
            logs[DOM0_LOG] = boot.dom0_log.encode(errors="replace")
        cases: list[CaseResult] = []
        made = [(boot, (SERIAL,)) for boot in self.boots[-1:]] + [(guest, ()) for guest in self.apart]
        for each, usual in made:
            for case in each.cases:
                # Made for the sake of others: of no interest unless it failed.
                if usual and case.name not in self.asked and case.verdict is Verdict.PASS:
                    continue
                own = _logs_of(each, case, apart=not usual)
                logs |= own
                cases.append(msgspec.structs.replace(case, logs=(*usual, *own), rerun=rerun(case.name)))
        return (*cases, *self.skipped), logs


def _logs_of(run: Run, case: CaseResult, *, apart: bool) -> dict[str, bytes]:
    folder = f"{CASES}/{case.name}"
    kept = {f"{folder}/{name}": text for (owner, name), text in run.logs.items() if owner == case.name}
    if apart and run.command:
        kept[f"{folder}/{SERIAL}"] = run.serial.getvalue().decode(errors="replace")
        if run.dom0_log:
            kept[f"{folder}/{DOM0_LOG}"] = run.dom0_log
    return {name: text.encode(errors="replace") for name, text in kept.items()}


def _skipped(case: Case, reason: str) -> CaseResult:
    return CaseResult(
        name=case.name, title=case.title, tier=case.tier, verdict=Verdict.SKIPPED, evidence=reason
    )


def _input(path: Path) -> Input:
    return Input(path.name, path.stat().st_size, sha256(path))


def _parts(files: BootFiles) -> list[Input]:
    sizes = {"xen": files.xen, "kernel": files.kernel, "initramfs": files.initramfs}
    return [Input(name, len(sizes[name]), digest) for name, digest in files.hashes().items()]


class _CachedKernel(msgspec.Struct, frozen=True):
    release: str
    vmlinux: bytes
    modules: dict[str, bytes]
    packing: Packing


def cached_kernel(package: Path, scratch: Path) -> Kernel:
    """Read a kernel package, or what an earlier run kept of the same one (5 s less).

    The kept file is found by the hash of the package and of what was asked of it, and carries its own
    hash: a damaged one is made anew.
    """
    asked = " ".join((*MODULES, "?", *MODULES_OF_SOME))
    key = hashlib.sha256(f"{_CACHE_FORMAT} {sha256(package)} {asked}".encode()).hexdigest()
    file = scratch / f"kernel-{key[:32]}.msgpack"
    if file.is_file():
        data = file.read_bytes()
        if hashlib.sha256(data[32:]).digest() == data[:32]:
            kept = msgspec.msgpack.decode(data[32:], type=_CachedKernel)
            return Kernel(kept.release, kept.vmlinux, kept.modules, kept.packing)
        log.warn(f"{file} is damaged, and made anew.")
    kernel = read_kernel_package(package, MODULES, MODULES_OF_SOME)
    kept = _CachedKernel(kernel.release, kernel.vmlinux, dict(kernel.modules), kernel.packing)
    data = msgspec.msgpack.encode(kept)
    write_bytes(file, hashlib.sha256(data).digest() + data)
    return kernel
