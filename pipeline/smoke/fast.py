"""The fast tier's plan: a boot test, then every other case from the host that it brought up.

That host is saved, and so is one in which a guest runs; each case goes on from one of them on a machine of
its own, as many at once as there are processors.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pipeline import log
from pipeline.smoke.accelerator import Accelerator
from pipeline.smoke.cancelling import all_of
from pipeline.smoke.case import Case, Start
from pipeline.smoke.cases import GUESTS, VITAL, devices
from pipeline.smoke.cases.boot import READY
from pipeline.smoke.hardware import Hardware
from pipeline.smoke.machine import Machine
from pipeline.smoke.plan import Suite
from pipeline.smoke.results import CASES, DOM0_LOG, MAX_ATTEMPTS, SERIAL, CaseResult, Verdict
from pipeline.smoke.runner import Run, Runner, without
from pipeline.smoke.snapshot import Snapshots, snapshot_key


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
    _keys: dict[Accelerator, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The key of the saved host."""
        return self._key(self.runner)

    def _key(self, runner: Runner) -> str:
        accelerator = runner.facts.accelerator
        if accelerator not in self._keys:
            self._keys[accelerator] = snapshot_key(self.hardware, accelerator, self.qemu_version)
        return self._keys[accelerator]

    def _guest_key(self, runner: Runner) -> str:
        """The key of the saved host in which a guest runs."""
        guest = f"{self._key(runner)} {devices.RUNNING.config}"
        return hashlib.sha256(guest.encode()).hexdigest()

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
        await self._boot(suite.boot or VITAL, save=bool(suite.guests))
        if suite.guests and not await self._from_saved(suite):
            reason = "Not made, because the boot failed."
            self.skipped = [without(case, Verdict.SKIPPED, reason) for case in suite.guests]

    async def _boot(self, cases: Sequence[Case], *, save: bool) -> None:
        """Make the boot test; once more, where the test bed failed."""
        for number in range(1, MAX_ATTEMPTS + 1):
            with log.step("Booting Xen"):
                after = {READY: self._save} if save else {}
                self.boots.append(await self.runner.in_order(self.hardware, cases, after=after))
            if not self.boots[-1].broken or number == MAX_ATTEMPTS:
                return
            log.warn("the test bed failed; once more, from a cold start")
            self.runner = self.runner.with_patience()

    async def _save(self, machine: Machine) -> None:
        begin = time.monotonic()
        await self.snapshots.save(self.key, machine)
        await machine.resume()
        self.timings["save"] = time.monotonic() - begin

    async def _from_saved(self, suite: Suite) -> bool:
        """Make cases from the snapshot of the host; whether there is one."""
        with self.snapshots.use(self.key) as snapshot:
            if snapshot is None:
                return False
            begin = time.monotonic()
            with log.step(f"Guests, {self.runner.cores} at once, from the saved host"), ExitStack() as uses:
                if suite.together > 1:
                    saved = self.hardware, suite.guests, snapshot.folder
                    self.apart = await self.runner.together(*saved, suite.together, VITAL)
                else:
                    await self._guests(suite.guests, snapshot.folder, uses)
            self.timings["guests"] = time.monotonic() - begin
        return True

    async def _guests(self, guests: Sequence[Case], host: Path, uses: ExitStack) -> None:
        """Make cases, those that begin with a guest as soon as there is one."""
        free = asyncio.Semaphore(self.runner.cores)
        makers = [case for case in guests if case.makes]
        running: asyncio.Future[tuple[Path, Runner] | None] = asyncio.get_running_loop().create_future()
        kept = None if makers else uses.enter_context(self.snapshots.use(self._guest_key(self.runner)))
        if kept is not None:
            running.set_result((kept.folder, self.runner))
        elif any(case.start is Start.GUEST for case in guests):
            makers = makers or [case for case in GUESTS if case.makes is Start.GUEST]

        async def make(case: Case) -> Run:
            runner = self.runner
            async with free:
                after = {case.name: self._save_guest}
                run = await runner.alone(self.hardware, case, host, first=VITAL, after=after)
            # It was made once more, and with patience.
            runner = runner if run.cases[0].restored else runner.with_patience()
            made = uses.enter_context(self.snapshots.use(self._guest_key(runner))) if run.passed else None
            running.set_result((made.folder, runner) if made else None)
            return run

        async def one(case: Case) -> Run:
            begin: tuple[Path, Runner] | None = (host, self.runner)
            if case.start is Start.GUEST:
                begin = await running
            if begin is None:
                reason = "Not made, because no guest ran with a vif and a disk."
                return Run([without(case, Verdict.SKIPPED, reason)])
            first = (*VITAL, *makers) if case.start is Start.GUEST else VITAL
            async with free:
                return await begin[1].alone(self.hardware, case, begin[0], first=first)

        jobs = [make(case) for case in makers] + [one(case) for case in guests if not case.makes]
        runs = await all_of(jobs)
        # Made for the sake of others, one is of no interest unless it failed.
        order = {case.name: number for number, case in enumerate(guests)}
        shown = [run for run in runs if run.cases[0].name in order or not run.passed]
        self.apart = sorted(shown, key=lambda run: order.get(run.cases[0].name, -1))

    async def _save_guest(self, machine: Machine) -> None:
        begin = time.monotonic()
        runner = self.runner.with_patience() if machine.accelerator.patient else self.runner
        await self.snapshots.save(self._guest_key(runner), machine)
        self.timings["save guest"] = time.monotonic() - begin

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
