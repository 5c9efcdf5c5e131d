"""A virtual machine with Xen in it: QEMU, its monitor, its serial line, and the agent inside.

Every wait ends at its limit, and at once when the serial line tells of a panic or the machine goes away.
QEMU does not outlive this process, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

from qemu.qmp import EventListener, QMPClient, QMPError

from pipeline.errors import PipelineError, ToolMissingError
from pipeline.smoke.accelerator import Accelerator
from pipeline.smoke.agent import MAX_REPLY, Agent
from pipeline.smoke.dom0 import BootFiles
from pipeline.smoke.errors import (
    AgentLostError,
    HangError,
    InfrastructureError,
    MachineResetError,
    NoBannerError,
    QemuDiedError,
)
from pipeline.smoke.serial import SerialWatcher

T = TypeVar("T")

AFTERMATH = 0.5
"""Seconds that the serial line is still read after a panic: the trace follows its headline."""
MAX_QEMU_OUTPUT = 64 << 10


@dataclass(frozen=True)
class Shape:
    """How the machine is made; memory in MiB.

    The options of Xen leave ``noreboot`` out: with it, QEMU would hang on a crash instead of ending.
    """

    memory: int = 768
    dom0_memory: int = 384
    xen_options: str = "console=com1 com1=115200,8n1 loglvl=info guest_loglvl=info dom0_max_vcpus=1"
    kernel_options: str = "console=hvc0 quiet panic=5"

    def xen_command_line(self) -> str:
        """Return Xen's command line."""
        return f"{self.xen_options} dom0_mem={self.dom0_memory}M,max:{self.dom0_memory}M"


def _error_of(task: asyncio.Future[T]) -> BaseException | None:
    return None if task.cancelled() else task.exception()


@dataclass(frozen=True)
class Exit:
    """How the machine ended: QEMU's return code, and the reason that its SHUTDOWN event gave."""

    status: int
    reason: str | None


def qemu_arguments(
    shape: Shape, accelerator: Accelerator, serial: int, agent: int, monitor: int
) -> list[str]:
    """Return QEMU's command line; the last three are descriptors of connected sockets.

    Files are named relative to the working directory, because QEMU's -initrd splits at commas.
    """
    return [
        "qemu-system-x86_64",
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        *("-accel", accelerator.qemu_option),
        *("-machine", "pc"),
        # https://gitlab.com/qemu-project/qemu: SMAP as emulated by 7.2 kills a PV dom0 at once.
        *("-cpu", accelerator.qemu_cpu),
        *("-m", str(shape.memory)),
        *("-smp", "1"),
        *("-display", "none"),
        *("-vga", "none"),
        *("-net", "none"),
        *("-chardev", f"socket,id=serial,fd={serial}"),
        *("-serial", "chardev:serial"),
        *("-device", "virtio-serial-pci"),
        *("-chardev", f"socket,id=agent,fd={agent}"),
        *("-device", "virtserialport,chardev=agent,name=smoke.agent"),
        *("-chardev", f"socket,id=monitor,fd={monitor}"),
        *("-mon", "chardev=monitor,mode=control"),
        *("-kernel", "xen"),
        *("-append", shape.xen_command_line()),
        *("-initrd", f"kernel {shape.kernel_options},initramfs"),
    ]


class Machine:
    """One boot of one machine, as an asynchronous context manager; left, QEMU is gone.

    ``folder`` takes the boot files; ``log`` the serial line, a line each with its time in seconds.
    """

    def __init__(
        self,
        files: BootFiles,
        accelerator: Accelerator,
        folder: Path,
        log: BinaryIO,
        shape: Shape | None = None,
    ) -> None:
        self._files = files
        self._accelerator = accelerator
        self._folder = folder
        self._shape = shape or Shape()
        self.watcher = SerialWatcher(log)
        self.command: list[str] = []
        self.events: list[str] = []
        self.qemu_output = b""
        self._start = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []
        self._news = asyncio.Condition()
        self._monitor = QMPClient("smoke")
        self._reason: str | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the machine was started."""
        return time.monotonic() - self._start

    @property
    def pid(self) -> int:
        """QEMU's process."""
        return self._process.pid

    async def __aenter__(self) -> Self:
        """Start QEMU. Raises ToolMissingError or QemuDiedError."""
        self._fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Nobody may come to ask for it; that is no reason for a warning.
        self._fatal.add_done_callback(lambda future: future.cancelled() or future.exception())
        for name, data in (("xen", self._files.xen), ("kernel", self._files.kernel)):
            (self._folder / name).write_bytes(data)
        (self._folder / "initramfs").write_bytes(self._files.initramfs)
        pairs = [socket.socketpair() for _ in range(3)]
        theirs = [pair[1].fileno() for pair in pairs]
        self.command = qemu_arguments(self._shape, self._accelerator, *theirs)
        try:
            self._process = await self._spawn(theirs)
        finally:
            # With a copy of QEMU's ends left here, QEMU's death would not end the lines.
            for _, end in pairs:
                end.close()
        try:
            await self._connect(*(pair[0] for pair in pairs))
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill QEMU if it still runs."""
        await self.close()

    async def _spawn(self, descriptors: Sequence[int]) -> asyncio.subprocess.Process:
        self._start = time.monotonic()
        try:
            return await asyncio.create_subprocess_exec(
                # The kernel kills QEMU when this process dies, even by a signal that nobody can catch.
                *("setpriv", "--pdeathsig", "KILL", "--", *self.command),
                cwd=self._folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=descriptors,
                start_new_session=True,
            )
        except FileNotFoundError as e:
            raise ToolMissingError(
                "setpriv is not installed.", hint="./inv setup installs what this host lacks."
            ) from e

    async def _connect(self, serial: socket.socket, agent: socket.socket, monitor: socket.socket) -> None:
        reader, self._serial_writer = await asyncio.open_connection(sock=serial)
        self._start_task(self._watch_serial(reader))
        self._start_task(self._watch_output())
        agent_reader, self._agent_writer = await asyncio.open_connection(sock=agent, limit=MAX_REPLY)
        self.agent = Agent(agent_reader, self._agent_writer)
        self._start_task(self._watch_process())
        try:
            self._listener = EventListener(("SHUTDOWN", "GUEST_PANICKED", "INTERNAL_ERROR", "RESET"))
            self._monitor.register_listener(self._listener)
            await asyncio.wait_for(self._monitor.connect(monitor), 30)
        except (QMPError, TimeoutError, OSError) as e:
            await asyncio.sleep(AFTERMATH)
            raise QemuDiedError("QEMU did not start.", hint=self._last_words() or str(e)) from e
        self._start_task(self._watch_events())

    def _start_task(self, work: Awaitable[None]) -> None:
        self._tasks.append(asyncio.ensure_future(work))

    async def _watch_serial(self, reader: asyncio.StreamReader) -> None:
        # A reset by the peer is how a killed QEMU's socket ends.
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                self.watcher.feed(data, self.seconds)
                await self._look()
        self.watcher.finish(self.seconds)
        await self._look()

    async def _look(self) -> None:
        if self.watcher.fault is not None:
            self._fail(self.watcher.fault)
        async with self._news:
            self._news.notify_all()

    async def _watch_output(self) -> None:
        assert self._process.stdout is not None
        while data := await self._process.stdout.read(4096):
            self.qemu_output = (self.qemu_output + data)[-MAX_QEMU_OUTPUT:]

    async def _watch_events(self) -> None:
        async for event in self._listener:
            data = event.get("data")
            reason = data.get("reason") if isinstance(data, dict) else None
            self.events.append(f"{self.seconds:.3f} {event['event']} {reason or ''}".rstrip())
            if event["event"] == "SHUTDOWN":
                self._reason = str(reason)

    async def _watch_process(self) -> None:
        await self._process.wait()
        await self._settle()
        self._fail(self._describe_end())

    async def _settle(self) -> None:
        """Let what QEMU last wrote come out of its sockets; the reason of its end is there."""
        await asyncio.wait(self._tasks[:2], timeout=2)
        for _ in range(20):
            if self._reason is not None or self._process.returncode != 0:
                return
            await asyncio.sleep(0.05)

    def _describe_end(self) -> PipelineError:
        if self._reason in ("guest-reset", "guest-panic"):
            return MachineResetError("The machine reset, and no panic was printed before.")
        if self._reason == "guest-shutdown":
            return MachineResetError("The machine switched itself off before it was asked to.")
        return QemuDiedError(
            f"QEMU ended with return code {self._process.returncode} in the middle of the run.",
            hint=self._last_words() or None,
        )

    def _last_words(self) -> str:
        return self.qemu_output.decode(errors="replace").strip()[-2000:]

    def _fail(self, error: PipelineError) -> None:
        if not self._fatal.done():
            self._fatal.set_exception(error)

    async def _first_of(self, task: asyncio.Future[T], limit: float) -> None:
        both: set[asyncio.Future[T] | asyncio.Future[None]] = {task, self._fatal}
        await asyncio.wait(both, timeout=limit, return_when=asyncio.FIRST_COMPLETED)

    async def guard(self, work: Awaitable[T], limit: float, what: str) -> T:
        """Wait for ``work``; what happens to the machine meanwhile goes first.

        Raises HangError after ``limit`` seconds, and whatever ended the machine.
        """
        task = asyncio.ensure_future(work)
        try:
            await self._first_of(task, limit)
            if task.done() and isinstance(_error_of(task), AgentLostError):
                # QEMU's end breaks the agent's line too, a moment before it is known as such.
                await asyncio.wait({self._fatal}, timeout=3)
            if self._fatal.done():
                await self._raise_fatal()
            if task.done():
                return task.result()
            raise HangError(f"{what}: nothing came of it within {limit:g} s.")
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, PipelineError):
                await task

    async def _raise_fatal(self) -> None:
        if self._process.returncode is None:
            await asyncio.sleep(AFTERMATH)
        # The agent's line breaks and QEMU ends because of a panic, never the other way round.
        if self.watcher.fault is not None:
            raise self.watcher.fault
        self._fatal.result()

    async def _until(self, true: Callable[[], bool]) -> None:
        async with self._news:
            await self._news.wait_for(true)

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
        await asyncio.wait({self._fatal}, timeout=limit)
        if self.watcher.fault is not None:
            await self._raise_fatal()
        if self._process.returncode is None:
            raise HangError(f"The machine was still on {limit:g} s after it was told to power off.")
        await self._settle()
        return Exit(self._process.returncode, self._reason)

    async def close(self) -> None:
        """Kill QEMU if it still runs, and give all back. Can be called again."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        # The watcher of events is not among those: it never ends by itself.
        await asyncio.wait(self._tasks[:3], timeout=2)
        with contextlib.suppress(Exception):
            await self._monitor.disconnect()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for name in ("_serial_writer", "_agent_writer"):
            if (writer := getattr(self, name, None)) is not None:
                writer.close()
        if not self._fatal.done():
            self._fatal.set_exception(InfrastructureError("The machine was closed."))
