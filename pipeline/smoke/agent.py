"""Speak with the agent in dom0 (agent.sh says how its lines look).

What comes back is output of the machine under test: bounded, decoded leniently, never interpreted.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from dataclasses import dataclass

from pipeline.smoke.errors import AgentLostError

MAX_OUTPUT = 256 << 10
"""Bytes of a command's output that come back."""
MAX_REPLY = MAX_OUTPUT * 2
"""Bytes after which a line from the agent is not one."""
GRACE = 10.0
"""Seconds that an answer may take beyond the command's own limit."""

_REPLY = re.compile(rb"done (\d{1,9}) (\d{1,3}) ([01]) ([A-Za-z0-9+/=]*)$")


@dataclass(frozen=True)
class Reply:
    """How a command in dom0 ended; status 143 or 124 means that its time was up."""

    status: int
    output: str
    truncated: bool

    @property
    def timed_out(self) -> bool:
        """Whether the agent stopped the command: timeout of busybox says 143, that of coreutils 124."""
        return self.status in (124, 143)


def parse_reply(line: bytes, id: int) -> Reply | None:
    """Return the answer to the request ``id`` that a line holds; None for any other line."""
    match = _REPLY.match(line.rstrip(b"\r\n"))
    if match is None or int(match[1]) != id:
        return None
    try:
        output = base64.b64decode(match[4], validate=True)
    except binascii.Error:
        return None
    return Reply(int(match[2]), output[:MAX_OUTPUT].decode(errors="replace"), match[3] == b"1")


class Agent:
    """The host's end of the virtio-serial port; one command at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._last = 0

    async def wait_ready(self) -> None:
        """Return once the agent has said that it listens. Raises AgentLostError."""
        while (await self._line()).strip() != b"ready":
            pass

    async def run(self, command: str, limit: float) -> Reply:
        """Run a shell command in dom0 for at most ``limit`` seconds.

        Raises AgentLostError when no answer comes, even to the same request sent again.
        """
        self._last += 1
        encoded = base64.b64encode(command.encode()).decode()
        request = f"run {self._last} {max(1, round(limit))} {MAX_OUTPUT} {encoded}\n".encode()
        for wait in (limit + GRACE, GRACE):
            try:
                return await asyncio.wait_for(self._ask(request, self._last), wait)
            except TimeoutError:
                continue
        raise AgentLostError(f"The agent did not answer within {limit + 2 * GRACE:g} s.")

    async def _ask(self, request: bytes, id: int) -> Reply:
        try:
            self._writer.write(request)
            await self._writer.drain()
        except ConnectionError as e:
            raise AgentLostError(f"The agent's line is broken: {e}.") from e
        while True:
            if (reply := parse_reply(await self._line(), id)) is not None:
                return reply

    async def _line(self) -> bytes:
        try:
            line = await self._reader.readline()
        # asyncio says so of a line longer than the reader's limit, and drops it.
        except ValueError:
            return b""
        except ConnectionError as e:
            raise AgentLostError(f"The agent's line is broken: {e}.") from e
        if not line:
            raise AgentLostError("The agent's line was closed.")
        return line
