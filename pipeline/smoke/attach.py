"""Attach a terminal to a machine's serial line, where dom0 and Xen have their console.

What is typed goes to the machine as it is, and what it prints comes to the terminal as it is; the agents
have no part in it. Enter opens a shell in dom0; Ctrl-A three times switches to Xen's own keys and back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass

from pipeline.errors import UsageError
from pipeline.smoke.machine import Machine

LEAVE = b"\x1c"
"""What leaves a machine: Ctrl-\\."""
_IFLAG, _OFLAG, _CFLAG, _LFLAG = range(4)


@dataclass(frozen=True)
class Terminal:
    """A terminal, by the descriptors of its two directions, that is attached to the machine of one case.

    ``shell`` says that dom0 has one for it.
    """

    case: str
    input: int
    output: int
    shell: bool = True

    @classmethod
    def own(cls, case: str, *, shell: bool = True) -> Terminal:
        """The terminal that this program runs in. Raises UsageError where there is none."""
        if not sys.stdin.isatty() or not sys.stdout.isatty():
            raise UsageError("--attach needs a terminal.", hint="Without it, the console is in the results.")
        return cls(case, sys.stdin.fileno(), sys.stdout.fileno(), shell)

    @contextlib.asynccontextmanager
    async def attached(self, machine: Machine) -> AsyncIterator[None]:
        """Attach it to a machine, and keep it so beyond the end of the block, until somebody leaves.

        The end of the machine ends it too; an error in the block is raised after that.
        """
        left = asyncio.Event()
        with _raw(self.input), self._joined(machine, left):
            shell = "Enter for a shell, " if self.shell else ""
            self._say(f"attached to the machine of {self.case}: {shell}Ctrl-\\ to leave")
            try:
                yield
            finally:
                if not left.is_set() and machine.running:
                    self._say(f"{self.case} is over, its machine is not: Ctrl-\\ to leave")
                    await _first(left.wait(), machine.ended())

    @contextlib.contextmanager
    def _joined(self, machine: Machine, left: asyncio.Event) -> Iterator[None]:
        def typed() -> None:
            data = os.read(self.input, 4096)
            before, leave, _ = data.partition(LEAVE)
            machine.send(before)
            # No data at all: the terminal was closed.
            if leave or not data:
                loop.remove_reader(self.input)
                machine.taps.remove(self._show)
                self._say("left")
                left.set()

        loop = asyncio.get_running_loop()
        machine.taps.append(self._show)
        loop.add_reader(self.input, typed)
        try:
            yield
        finally:
            loop.remove_reader(self.input)
            if self._show in machine.taps:
                machine.taps.remove(self._show)

    def _show(self, data: bytes) -> None:
        # A terminal that was closed has nobody to read.
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self.output, data) :]

    def _say(self, text: str) -> None:
        self._show(f"\r\n[{text}]\r\n".encode())


@contextlib.contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """Let all keys through, Ctrl-C too; what is printed is still laid out, for the lines of this program."""
    before = termios.tcgetattr(terminal)
    mode = termios.tcgetattr(terminal)
    mode[_IFLAG] &= ~(termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON)
    mode[_LFLAG] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
    termios.tcsetattr(terminal, termios.TCSADRAIN, mode)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


async def _first(*waits: Coroutine[object, object, object]) -> None:
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
