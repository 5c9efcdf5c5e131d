"""Make cases on machines and judge them: in order on one machine, or each on one of its own.

Whatever a machine does ends in the verdict of a case.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from pipeline import log
from pipeline.errors import ExitStatus, PipelineError
from pipeline.scratch import scratch
from pipeline.smoke.attach import Terminal
from pipeline.smoke.cancelling import all_of
from pipeline.smoke.case import Case, Facts, Host, Limits
from pipeline.smoke.errors import (
    BrokenCaseError,
    CheckFailedError,
    HangError,
    InfrastructureError,
    InPackageError,
    NotApplicableError,
)
from pipeline.smoke.hardware import Hardware
from pipeline.smoke.machine import Machine
from pipeline.smoke.results import MAX_ATTEMPTS, CaseResult, Verdict

STARVED = 3.0
"""How many times longer than it could run a machine may be there for its failures to count at once."""
Hook = Callable[[Machine], Awaitable[None]]
_NOTHING: Mapping[str, Hook] = {}
_DOM0_LOG = """xl dmesg | tail -n 200
for log in /var/log/xen/*.log /var/log/xen/console/*; do
    if [ -f "$log" ]; then echo "== $log"; tail -c 20000 "$log"; fi
done"""


@dataclass
class Run:
    """One machine and what was found on it; filled in while it runs, so that a broken one leaves its trace.

    ``logs`` are texts that cases kept, by the case's name and the file's. ``lived`` are the seconds, of all,
    in which the machine could have run.
    """

    cases: list[CaseResult] = field(default_factory=list)
    logs: dict[tuple[str, str], str] = field(default_factory=dict)
    serial: io.BytesIO = field(default_factory=io.BytesIO)
    dom0_log: str = ""
    command: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    found: str | None = None
    seconds: float = 0.0
    lived: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether all its cases passed."""
        return all(case.verdict is Verdict.PASS for case in self.cases)

    @property
    def broken(self) -> bool:
        """Whether the test bed failed, or a case did on a host too busy to judge it by."""
        verdicts = {case.verdict for case in self.cases}
        starved = self.seconds > STARVED * self.lived
        return Verdict.INFRASTRUCTURE in verdicts or (starved and Verdict.FAIL in verdicts)


@dataclass(frozen=True)
class Runner:
    """Makes cases; ``work`` gets a folder a machine, and ``cores`` machines run at once.

    ``terminal`` is attached to the machine of its case.
    """

    facts: Facts
    limits: Limits
    work: Path
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    terminal: Terminal | None = None

    def with_patience(self) -> Runner:
        """Return one for a host that gives machines too little time."""
        accelerator = self.facts.accelerator.with_patience()
        return replace(self, facts=replace(self.facts, accelerator=accelerator))

    async def in_order(
        self,
        hardware: Hardware,
        cases: Sequence[Case],
        saved: Path | None = None,
        after: Mapping[str, Hook] = _NOTHING,
        kept: Path | None = None,
    ) -> Run:
        """Start a machine and make cases on it in order; the failure of a vital one ends the run.

        ``saved`` is a saved machine to go on from. ``after`` is what else is done after a case
        of that name has passed. ``kept`` is the machine's folder, where its drives are to be found again by
        another run; without it, nothing of the machine is left.
        """
        run = Run()
        todo = list(cases)
        with contextlib.nullcontext(kept) if kept else scratch(self.work, "machine") as folder:
            machine = Machine(hardware, self.facts.accelerator, folder, run.serial, saved)
            try:
                attached = self._attached(machine, cases)
                # Who sits at a terminal may think.
                limit = None if self.terminal else self.limits.total
                async with asyncio.timeout(limit), machine, attached:
                    run.command = tuple(machine.command)
                    await self._sequence(machine, todo, run, after)
            except TimeoutError:
                error = HangError(f"The run was not over after {self.limits.total:g} s.")
                run.cases += [_judge(c, error, machine.seconds, 0.0, tail(machine)) for c in todo[:1]]
            except PipelineError as e:
                # QEMU itself did not come up, or could not save the machine.
                run.cases += [_judge(c, e, machine.seconds, 0.0) for c in todo[:1]]
            run.command = tuple(machine.command)
            run.events = machine.events
            run.found = machine.watcher.banner
            run.seconds = machine.seconds
            run.lived = machine.lived
        cause = "Not made, because the run had ended."
        done = {case.name for case in run.cases}
        run.cases += [without(c, Verdict.SKIPPED, cause) for c in cases if c.name not in done]
        return run

    @contextlib.asynccontextmanager
    async def _attached(self, machine: Machine, cases: Sequence[Case]) -> AsyncIterator[None]:
        if self.terminal is None or self.terminal.case not in {case.name for case in cases}:
            yield
            return
        async with self.terminal.attached(machine):
            yield

    async def _sequence(
        self,
        machine: Machine,
        todo: list[Case],
        run: Run,
        after: Mapping[str, Hook],
    ) -> None:
        host = Host(machine, self.facts, self.limits)
        while todo:
            if not await self._one(todo[0], host, run):
                return
            # It has its verdict: what fails from here on is the next one's.
            name = todo.pop(0).name
            if run.cases[-1].verdict is Verdict.FAIL:
                run.dom0_log = await dom0_log(host)
            elif run.cases[-1].verdict is Verdict.PASS and (hook := after.get(name)) is not None:
                await hook(machine)

    async def _one(self, case: Case, host: Host, run: Run) -> bool:
        """Make one case and note its verdict; whether the run can go on."""
        if (reason := case.lacks(self.facts)) is not None:
            run.cases.append(_none(case, reason))
            return True
        machine = host.machine
        begin, cpu = machine.seconds, machine.progress.cpu
        host.logs = {}
        try:
            evidence = await case.run(host)
        except NotApplicableError as e:
            seconds = round(machine.seconds - begin, 3)
            result = _none(case, e.message)
            run.cases.append(msgspec.structs.replace(result, begin=round(begin, 3), seconds=seconds))
            return True
        except PipelineError as e:
            seconds = machine.seconds - begin
            run.cases.append(_judge(case, e, begin, seconds, tail(machine)))
            log.error(f"{case.title}: {type(e).__name__} after {log.duration(seconds)}: {e.message}", e.hint)
            return not case.vital and isinstance(e, CheckFailedError | HangError)
        finally:
            run.logs |= {(case.name, name): text for name, text in host.logs.items()}
        seconds = machine.seconds - begin
        machine.progress.tick()
        run.cases.append(
            CaseResult(
                name=case.name,
                title=case.title,
                tier=case.tier,
                verdict=Verdict.PASS,
                evidence=evidence,
                begin=round(begin, 3),
                seconds=round(seconds, 3),
                cpu=round(machine.progress.cpu - cpu, 3),
            )
        )
        log.info(f"{case.title}: pass ({log.duration(seconds)})")
        return True

    async def apart(
        self, hardware: Hardware, cases: Sequence[Case], saved: Path, first: Sequence[Case] = ()
    ) -> list[Run]:
        """Make cases each on a machine of its own that goes on from a saved one, as many as cores at once.

        Where the test bed failed, the case is made once more after a cold boot and the cases ``first``.
        Returns a run a case, in the order of the cases.
        """
        free = asyncio.Semaphore(self.cores)

        async def one(case: Case) -> Run:
            async with free:
                return await self.alone(hardware, case, saved, first)

        return await all_of(one(case) for case in cases)

    async def together(
        self, hardware: Hardware, cases: Sequence[Case], saved: Path, size: int, first: Sequence[Case] = ()
    ) -> list[Run]:
        """Make cases on machines that go on from a saved one, up to ``size`` on each, one after the other.

        What a machine's end has left undone is made on another; otherwise as `apart`.
        """
        todo, runs = deque(cases), list[Run]()
        # A few cases are shared out evenly.
        size = min(size, -(-len(cases) // self.cores))

        async def work() -> None:
            while todo:
                batch = [todo.popleft() for _ in range(min(size, len(todo)))]
                run = await self.in_order(hardware, batch, saved)
                verdicts = {result.name: result.verdict for result in run.cases}
                broken = [c for c in batch if verdicts[c.name] is Verdict.INFRASTRUCTURE]
                undone = [c for c in batch if verdicts[c.name] is Verdict.SKIPPED]
                again = {case.name for case in (*broken, *undone)}
                run.cases = [
                    msgspec.structs.replace(result, restored=True)
                    for result in run.cases
                    if result.name not in again
                ]
                runs.append(run)
                todo.extendleft(reversed(undone))
                runs.extend([await self.alone(hardware, case, saved, first) for case in broken])

        await all_of(work() for _ in range(self.cores))
        order = {case.name: number for number, case in enumerate(cases)}
        return sorted((run for run in runs if run.cases), key=lambda run: order[run.cases[0].name])

    async def alone(
        self,
        hardware: Hardware,
        case: Case,
        saved: Path,
        first: Sequence[Case],
        after: Mapping[str, Hook] = _NOTHING,
    ) -> Run:
        """Make one case on a machine of its own; see `apart`, and `in_order` for ``after``."""
        if (reason := case.lacks(self.facts)) is not None:
            return Run([_none(case, reason)])
        run = await self.in_order(hardware, (case,), saved, after)
        restored, attempts = True, 1
        if run.broken:
            log.warn(f"the test bed failed; {case.name} once more, from a cold start")
            run = await self.with_patience().in_order(hardware, (*first, case), None, after)
            restored, attempts = False, MAX_ATTEMPTS
        result = next(c for c in run.cases if c.name == case.name)
        if result.verdict is Verdict.SKIPPED:
            cause = next(c for c in run.cases if c.failure)
            result = msgspec.structs.replace(cause, name=case.name, title=case.title, tier=case.tier)
        run.cases = [msgspec.structs.replace(result, restored=restored, attempts=attempts)]
        return run


def without(case: Case, verdict: Verdict, reason: str) -> CaseResult:
    """Return the result of a case that was not made."""
    return CaseResult(name=case.name, title=case.title, tier=case.tier, verdict=verdict, evidence=reason)


def _none(case: Case, reason: str) -> CaseResult:
    log.info(f"{case.title}: not applicable: {reason}")
    return without(case, Verdict.NOT_APPLICABLE, reason)


def _judge(case: Case, error: PipelineError, begin: float, seconds: float, serial: str = "") -> CaseResult:
    host = isinstance(error, InfrastructureError) or error.status is ExitStatus.HOST
    verdict = Verdict.INFRASTRUCTURE if host else Verdict.FAIL
    if isinstance(error, BrokenCaseError):
        verdict = Verdict.ERROR
    if serial:
        serial = f"Last lines of the serial log:\n{serial}"
    detail = "\n".join(part for part in (error.hint, serial) if part)
    return CaseResult(
        name=case.name,
        title=case.title,
        tier=case.tier,
        verdict=verdict,
        evidence=error.message,
        failure=type(error).__name__,
        file=error.file if isinstance(error, InPackageError) else None,
        detail=detail,
        begin=round(begin, 3),
        seconds=round(seconds, 3),
    )


def tail(machine: Machine, count: int = 40) -> str:
    """Return the last lines of the serial log."""
    return "\n".join(f"[{line.seconds:10.3f}] {line.text}" for line in machine.watcher.tail[-count:])


async def dom0_log(host: Host) -> str:
    """Ask dom0 for what it and Xen logged; nothing, where it does not answer."""
    try:
        reply = await host.run(_DOM0_LOG)
    except PipelineError as e:
        return f"No log of dom0: {e.message}\n"
    return reply.output
