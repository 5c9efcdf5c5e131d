"""A virtual machine with Xen in it: QEMU, its serial line, and the agents inside.

Every wait ends at its limit, which is in seconds of the machine (progress.py), and at once when the
serial line tells of a panic, the machine goes away, or nothing in it moves any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

from pipeline.errors import PipelineError
from pipeline.smoke.accelerator import Accelerator
from pipeline.smoke.agent import Agent, Reply
from pipeline.smoke.cancelling import to_the_end
from pipeline.smoke.errors import (
    AgentLostError,
    HangError,
    InfrastructureError,
    MachineResetError,
    NoBannerError,
    QemuDiedError,
)
from pipeline.smoke.hardware import Hardware
from pipeline.smoke.progress import Progress
from pipeline.smoke.qemu import AFTERMATH, Qemu
from pipeline.smoke.serial import SerialWatcher

T = TypeVar("T")

TICK = 0.25
"""Seconds between two looks at how far the machine has come."""
RESCUE_LIMIT = 20.0
"""Seconds in which the second agent must have stopped a command that hangs."""
MIGRATION_LIMIT = 120.0
STATE = "state"
"""The file with a saved machine's memory and devices."""


def _error_of(task: asyncio.Future[T]) -> BaseException | None:
    return None if task.cancelled() else task.exception()


@dataclass(frozen=True)
class Exit:
    """How the machine ended: QEMU's return code, and the reason that its SHUTDOWN event gave."""

    status: int
    reason: str | None


class Machine:
    """One run of one machine, as an asynchronous context manager; left, QEMU is gone.

    ``folder`` takes links to its files and the overlays of its drives; ``log`` the serial line, a line
    each with its time in seconds. ``saved`` is a folder that `save` filled, to go on from; the hardware
    must be the same.
    """

    def __init__(
        self,
        hardware: Hardware,
        accelerator: Accelerator,
        folder: Path,
        log: BinaryIO,
        saved: Path | None = None,
    ) -> None:
        self.hardware = hardware
        self.accelerator = accelerator
        self.folder = folder
        self.watcher = SerialWatcher(log)
        self.command: list[str] = []
        self.taps: list[Callable[[bytes], object]] = []
        """Called with the bytes of the serial line as they come."""
        self._saved = saved
        self._start = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []
        self._news = asyncio.Condition()

    @property
    def seconds(self) -> float:
        """Seconds since the machine was started."""
        return time.monotonic() - self._start

    @property
    def lived(self) -> float:
        """Seconds of those in which it could have run; all, where nothing ran yet."""
        return self.progress.seconds if hasattr(self, "progress") else self.seconds

    @property
    def pid(self) -> int:
        """QEMU's process."""
        return self._qemu.process.pid

    @property
    def running(self) -> bool:
        """Whether nothing has ended the machine yet."""
        return not self._fatal.done()

    async def ended(self) -> None:
        """Wait until the machine has ended, however."""
        await asyncio.wait({self._fatal})

    def send(self, data: bytes) -> None:
        """Send bytes over the serial line, as if typed at the console."""
        self._qemu.serial[1].write(data)

    @property
    def events(self) -> tuple[str, ...]:
        """What QEMU told of the machine's end: seconds, event, reason."""
        return tuple(self._qemu.events) if hasattr(self, "_qemu") else ()

    def _command(self, serial: int, agents: tuple[int, ...], monitor: int) -> list[str]:
        self.command = self.hardware.arguments(self.accelerator, serial, agents, monitor)
        return [*self.command, *(["-incoming", "defer"] if self._saved else [])]

    async def __aenter__(self) -> Self:
        """Start QEMU, and go on from the state if there is one. Raises ToolMissingError or QemuDiedError."""
        self._fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Nobody may come to ask for it; that is no reason for a warning.
        self._fatal.add_done_callback(lambda future: future.cancelled() or future.exception())
        self.hardware.lay_out(self.folder, self._saved)
        self._start = time.monotonic()
        try:
            await to_the_end(self._start_qemu())
            for work in (self._watch_serial(), self._watch_process(), self._watch_progress()):
                self._tasks.append(asyncio.ensure_future(work))
            if self._saved is not None:
                await self._restore(self._saved)
        except BaseException:
            await self.close()
            raise
        return self

    async def _start_qemu(self) -> None:
        self._qemu = await Qemu.start(self._command, self.folder, 2, lambda: self.seconds)
        # A machine that goes on has agents that said long ago that they are ready, and remember the
        # number of their last request.
        first = secrets.randbelow(10**8) + 10 if self._saved else 0
        self.agent, self._rescuer = (Agent(*stream, first) for stream in self._qemu.agents)
        self.progress = Progress(self.pid)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill QEMU if it still runs."""
        await self.close()

    async def _watch_serial(self) -> None:
        # A reset by the peer is how a killed QEMU's socket ends.
        with contextlib.suppress(ConnectionError):
            while data := await self._qemu.serial[0].read(1 << 16):
                self.watcher.feed(data, self.seconds)
                for tap in tuple(self.taps):
                    tap(data)
                self.progress.heard()
                await self._look()
        self.watcher.finish(self.seconds)
        await self._look()

    async def _look(self) -> None:
        if self.watcher.fault is not None:
            self._fail(self.watcher.fault)
        async with self._news:
            self._news.notify_all()

    async def _watch_progress(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self.progress.tick()

    async def _watch_process(self) -> None:
        await self._qemu.process.wait()
        await asyncio.wait(self._tasks[:1], timeout=2)
        await self._qemu.settle()
        self._fail(self._describe_end())

    def _describe_end(self) -> PipelineError:
        if self._qemu.reason in ("guest-reset", "guest-panic"):
            return MachineResetError("The machine reset, and no panic was printed before.")
        if self._qemu.reason == "guest-shutdown":
            return MachineResetError("The machine switched itself off before it was asked to.")
        return QemuDiedError(
            f"QEMU ended with return code {self._qemu.process.returncode} in the middle of the run.",
            hint=self._qemu.last_words or None,
        )

    def _fail(self, error: PipelineError) -> None:
        if not self._fatal.done():
            self._fatal.set_exception(error)

    async def _first_of(self, task: asyncio.Future[T], limit: float, patience: float) -> str:
        """Wait for a task or the machine's end; returns why no longer, where neither came."""
        both: set[asyncio.Future[T] | asyncio.Future[None]] = {task, self._fatal}
        end = self.progress.seconds + limit
        self.progress.heard()
        while not (await asyncio.wait(both, timeout=TICK, return_when=asyncio.FIRST_COMPLETED))[0]:
            if self.progress.seconds >= end:
                return f"nothing came of it within {limit:g} s"
            if self.progress.idle >= patience:
                return f"nothing came of it, and the machine has been idle for {patience:g} s"
        return ""

    async def guard(self, work: Awaitable[T], limit: float, what: str, patience: float = 1e9) -> T:
        """Wait for ``work``; what happens to the machine meanwhile goes first.

        Raises HangError after ``limit`` seconds of the machine, or after ``patience`` seconds in which it did
        nothing at all; and whatever ended the machine.
        """
        task = asyncio.ensure_future(work)
        try:
            hung = await self._first_of(task, limit, patience)
            if task.done() and isinstance(_error_of(task), AgentLostError):
                # QEMU's end breaks the agent's line too, a moment before it is known as such.
                await asyncio.wait({self._fatal}, timeout=3)
            if self._fatal.done():
                await self._raise_fatal()
            if task.done():
                return task.result()
            raise HangError(f"{what}: {hung}.")
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, PipelineError):
                await task

    async def _raise_fatal(self) -> None:
        if self._qemu.process.returncode is None:
            await asyncio.sleep(AFTERMATH)
        # The agent's line breaks and QEMU ends because of a panic, never the other way round.
        if self.watcher.fault is not None:
            raise self.watcher.fault
        self._fatal.result()

    async def run(self, command: str, limit: float, patience: float = 1e9) -> Reply:
        """Run a shell command in dom0 and return how it ended.

        One that does not end is stopped by the second agent. Raises HangError with a list of what hung,
        AgentLostError, and whatever ended the machine.
        """
        what = short(command)
        try:
            return await self.guard(self.agent.run(command), limit, f"`{what}` in dom0", patience)
        except HangError as e:
            stop = self._rescuer.run(f"{self.agent.describe}\n{self.agent.stop}")
            try:
                hung = await self.guard(stop, RESCUE_LIMIT, "the second agent")
            except HangError as lost:
                raise AgentLostError(f"{e.message} Nor does the second agent answer.") from lost
            if hung.status != 0:
                raise AgentLostError(f"The agent is gone: {e.message}", hint=hung.output) from e
            raise HangError(e.message, hint=hung.output.strip()) from e

    async def _until(self, true: Callable[[], bool]) -> None:
        async with self._news:
            await self._news.wait_for(true)

    async def wait_ready(self, limit: float) -> None:
        """Wait until both agents have said that they listen; a machine that goes on has that behind it."""
        if self._saved is None:
            await self.guard(self.agent.wait_ready(), limit, "dom0's boot")
            await self.guard(self._rescuer.wait_ready(), limit, "dom0's boot")

    async def wait_banner(self, limit: float) -> str:
        """Return the version that Xen says it is. Raises NoBannerError and what ended the machine."""
        try:
            await self.guard(self._until(lambda: self.watcher.banner is not None), limit, "Xen's banner")
        except HangError as e:
            heard = f" The last line was: {self.watcher.tail[-1].text}" if self.watcher.tail else ""
            raise NoBannerError(f"Xen did not say its version within {limit:g} s.{heard}") from e
        assert self.watcher.banner is not None
        return self.watcher.banner

    async def wait_line(self, text: str, limit: float) -> None:
        """Wait until a line of the serial log has ``text`` in it."""
        await self.guard(
            self._until(lambda: any(text in line.text for line in self.watcher.tail)), limit, repr(text)
        )

    async def wait_exit(self, limit: float) -> Exit:
        """Wait until QEMU has ended by itself. Raises HangError, or the panic that came instead."""
        # The watcher of the process speaks up when QEMU is gone, that of the serial line before.
        end = self.progress.seconds + limit
        while not self._fatal.done() and self.progress.seconds < end:
            await asyncio.wait({self._fatal}, timeout=TICK)
        if self.watcher.fault is not None:
            await self._raise_fatal()
        if self._qemu.process.returncode is None:
            raise HangError(f"The machine was still on {limit:g} s after it was told to power off.")
        await self._qemu.settle()
        return Exit(self._qemu.process.returncode, self._qemu.reason)

    async def screenshot(self, file: Path) -> None:
        """Write what the screen shows to a PNG file; the hardware must have a screen."""
        await self._qemu.execute("screendump", filename=str(file.resolve()), format="png")

    async def stop(self) -> None:
        """Halt the machine's processors, until `resume`."""
        await self._qemu.execute("stop")

    async def resume(self) -> None:
        """Let the machine run on."""
        await self._qemu.execute("cont")

    async def save(self, folder: Path) -> None:
        """Stop the machine and write all that it takes to go on from here into a folder.

        `resume` lets it run on. Raises InfrastructureError.
        """
        await self.stop()
        # The machine may itself go on from a saved one, to which this is a link.
        (self.folder / STATE).unlink(missing_ok=True)
        # A line of shell is how QEMU 7.2 takes a file, and so the name is ours.
        await self._qemu.execute("migrate", uri=f"exec:cat >{STATE}")
        await self._migrated("save")
        (self.folder / STATE).replace(folder / STATE)
        self.hardware.keep_overlays(self.folder, folder)

    async def _restore(self, saved: Path) -> None:
        link = self.folder / STATE
        link.unlink(missing_ok=True)
        link.symlink_to((saved / STATE).resolve())
        await self._qemu.execute("migrate-incoming", uri=f"exec:cat {STATE}")
        await self._migrated("restore")
        await self.resume()

    async def _migrated(self, what: str) -> None:
        end = time.monotonic() + MIGRATION_LIMIT
        while time.monotonic() < end:
            told = await self._qemu.execute("query-migrate")
            status = told.get("status") if isinstance(told, dict) else None
            if status == "completed":
                return
            if status in ("failed", "cancelled"):
                raise InfrastructureError(f"QEMU could not {what} the machine.", hint=str(told))
            await asyncio.sleep(0.02)
        raise InfrastructureError(f"QEMU did not {what} the machine within {MIGRATION_LIMIT:g} s.")

    async def close(self) -> None:
        """Kill QEMU if it still runs, and give all back. Can be called again."""
        if hasattr(self, "_qemu"):
            await to_the_end(self._close())

    async def _close(self) -> None:
        self._qemu.kill()
        if self._tasks:
            await asyncio.wait(self._tasks[:2], timeout=3)
        await self._qemu.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self._fatal.done():
            self._fatal.set_exception(InfrastructureError("The machine was closed."))


def short(command: str) -> str:
    """Return a command's first line, cut to 80 characters."""
    line = command.strip().splitlines()[0]
    return line if len(line) <= 80 else line[:77] + "..."
