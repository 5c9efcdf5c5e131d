"""A terminal at a machine's console, on a real pseudo-terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import termios
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from pipeline.errors import UsageError
from pipeline.smoke.attach import LEAVE, Terminal


@dataclass
class Line:
    """The side of a machine that a terminal sees."""

    taps: list[Callable[[bytes], object]] = field(default_factory=list)
    typed: bytes = b""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def running(self) -> bool:
        return not self.over.is_set()

    async def ended(self) -> None:
        await self.over.wait()

    def send(self, data: bytes) -> None:
        self.typed += data


@pytest.fixture
def terminal() -> Iterator[tuple[int, Terminal]]:
    """The user's end of a pseudo-terminal, and the other as a Terminal."""
    ours, theirs = pty.openpty()
    yield ours, Terminal("pv-guest", theirs, theirs)
    os.close(ours)
    os.close(theirs)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


def test_keys_go_to_the_machine_as_they_are(terminal: tuple[int, Terminal]) -> None:
    """If this fails, Ctrl-C ends the run instead of what runs in the machine, or keys are lost."""
    user, own = terminal
    line = Line()
    before = termios.tcgetattr(own.input)

    async def session() -> None:
        async with own.attached(line):  # type: ignore[arg-type]
            os.write(user, b"ls\r\x03\x1a\x01\x13")
            await until(lambda: line.typed == b"ls\r\x03\x1a\x01\x13")
            for tap in line.taps:
                tap(b"(XEN) \x1b[1mhello\x1b[0m\n")
            os.write(user, b"x" + LEAVE + b"not for the machine")
        assert not line.taps

    asyncio.run(session())
    assert line.typed == b"ls\r\x03\x1a\x01\x13x"
    shown = os.read(user, 65536).decode()
    assert "pv-guest" in shown
    assert "(XEN) \x1b[1mhello" in shown
    assert termios.tcgetattr(own.input) == before


def test_stays_after_the_case_until_somebody_leaves(terminal: tuple[int, Terminal]) -> None:
    """If this fails, the machine of a failed case is gone before anybody could look at it."""
    user, own = terminal
    line = Line()

    async def session() -> None:
        async with own.attached(line):  # type: ignore[arg-type]
            asyncio.get_running_loop().call_later(0.3, os.write, user, b"late" + LEAVE)

    asyncio.run(asyncio.wait_for(session(), 10))
    assert line.typed == b"late"
    assert "is over" in os.read(user, 65536).decode()


def test_ends_with_the_machine_and_passes_errors_on(terminal: tuple[int, Terminal]) -> None:
    """If this fails, a machine that died leaves the terminal waiting, or hides why."""
    _, own = terminal
    line = Line()

    async def session() -> None:
        async with own.attached(line):  # type: ignore[arg-type]
            asyncio.get_running_loop().call_later(0.2, line.over.set)
            raise ValueError("what happened")

    with pytest.raises(ValueError, match="what happened"):
        asyncio.run(asyncio.wait_for(session(), 10))


def test_terminal_is_restored_after_an_error(terminal: tuple[int, Terminal]) -> None:
    """If this fails, a failed run leaves a shell that shows nothing of what is typed."""
    _, own = terminal
    line = Line()
    line.over.set()
    before = termios.tcgetattr(own.input)

    async def session() -> None:
        async with own.attached(line):  # type: ignore[arg-type]
            assert termios.tcgetattr(own.input) != before
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        asyncio.run(session())
    assert termios.tcgetattr(own.input) == before


def test_without_a_terminal_it_is_wrong_use() -> None:
    """If this fails, --attach in a script waits for ever, or ends in a traceback."""
    with pytest.raises(UsageError, match="needs a terminal"):
        Terminal.own("pv-guest")
