"""One QEMU process: its sockets, its monitor, its last words. It does not outlive this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qemu.qmp import EventListener, QMPClient, QMPError

from pipeline.errors import ToolMissingError
from pipeline.smoke.agent import MAX_REPLY
from pipeline.smoke.cancelling import to_the_end
from pipeline.smoke.errors import QemuDiedError

# The library lets through what json raises for bytes that are no UTF-8, and for lists in lists in lists.
_FAILURES = (QMPError, OSError, ValueError, RecursionError)
MAX_OUTPUT = 64 << 10
"""Bytes of QEMU's own output that are kept."""
AFTERMATH = 0.5
"""Seconds in which a dying QEMU says why."""
START_LIMIT = 60.0
"""Seconds in which the monitor must have answered."""

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Qemu:
    """A process and its ends of the lines; made by `start`. ``events`` are those that tell of its end."""

    process: asyncio.subprocess.Process
    serial: Stream
    agents: tuple[Stream, ...]
    clock: Callable[[], float]
    monitor: QMPClient = field(default_factory=lambda: QMPClient("smoke"))
    events: list[str] = field(default_factory=list)
    reason: str | None = None
    output: bytes = b""
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    async def start(
        cls,
        command: Callable[[int, tuple[int, ...], int], list[str]],
        folder: Path,
        agents: int,
        clock: Callable[[], float],
    ) -> Qemu:
        """Start QEMU in a folder.

        ``command`` makes the command line of descriptors: serial line, agents' ports, monitor. Raises
        ToolMissingError or QemuDiedError.
        """
        pairs = [socket.socketpair() for _ in range(agents + 2)]
        theirs = [pair[1].fileno() for pair in pairs]
        try:
            process = await _spawn(command(theirs[0], tuple(theirs[1:-1]), theirs[-1]), folder, theirs)
        finally:
            # With a copy of QEMU's ends left here, QEMU's death would not end the lines.
            for _, end in pairs:
                end.close()
        serial, *ports = [await asyncio.open_connection(sock=ours, limit=MAX_REPLY) for ours, _ in pairs[:-1]]
        qemu = cls(process, serial, tuple(ports), clock)
        try:
            await qemu._connect(pairs[-1][0])
        except BaseException:
            await qemu.close()
            raise
        return qemu

    async def _connect(self, monitor: socket.socket) -> None:
        self._tasks.append(asyncio.ensure_future(self._watch_output()))
        listener = EventListener(("SHUTDOWN", "GUEST_PANICKED", "INTERNAL_ERROR", "RESET"))
        self.monitor.register_listener(listener)
        try:
            await asyncio.wait_for(self.monitor.connect(monitor), START_LIMIT)
        except (*_FAILURES, TimeoutError) as e:
            await asyncio.sleep(AFTERMATH)
            raise QemuDiedError("QEMU did not start.", hint=self.last_words or str(e)) from e
        self._tasks.append(asyncio.ensure_future(self._watch_events(listener)))

    async def execute(self, command: str, **arguments: object) -> object:
        """Give the monitor a command and return its answer. Raises QemuDiedError."""
        try:
            return await self.monitor.execute(command, dict(arguments))
        except _FAILURES as e:
            raise QemuDiedError(
                f"QEMU's monitor refused {command}: {e}.", hint=self.last_words or None
            ) from e

    async def _watch_output(self) -> None:
        assert self.process.stdout is not None
        while data := await self.process.stdout.read(4096):
            self.output = (self.output + data)[-MAX_OUTPUT:]

    async def _watch_events(self, listener: EventListener) -> None:
        async for event in listener:
            data = event.get("data")
            reason = data.get("reason") if isinstance(data, dict) else None
            self.events.append(f"{self.clock():.3f} {event['event']} {reason or ''}".rstrip())
            if event["event"] == "SHUTDOWN":
                self.reason = str(reason)

    async def settle(self) -> None:
        """After the process's end: let what it last said come in; the reason of its end is there."""
        await asyncio.wait(self._tasks[:1], timeout=2)
        for _ in range(20):
            if self.reason is not None or self.process.returncode != 0:
                return
            await asyncio.sleep(0.05)

    @property
    def last_words(self) -> str:
        """The end of what QEMU itself printed."""
        return self.output.decode(errors="replace").strip()[-2000:]

    def kill(self) -> None:
        """End the process at once."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    async def close(self) -> None:
        """Kill QEMU if it still runs, and give all back. Can be called again."""
        await to_the_end(self._close())

    async def _close(self) -> None:
        self.kill()
        await self.process.wait()
        with contextlib.suppress(Exception):
            await self.monitor.disconnect()
        # The watcher of events never ends by itself.
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _, writer in (self.serial, *self.agents):
            writer.close()


async def _spawn(
    command: Sequence[str], folder: Path, descriptors: Sequence[int]
) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            # The kernel kills QEMU when this process dies, even by a signal that nobody can catch.
            *("setpriv", "--pdeathsig", "KILL", "--", *command),
            cwd=folder,
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
