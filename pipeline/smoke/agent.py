"""Speak with the agent in dom0 (agent.sh says how its lines look).

What comes back is output of the machine under test: bounded, decoded leniently, never interpreted.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import re
from dataclasses import dataclass

from pipeline.smoke.errors import AgentLostError

MAX_OUTPUT = 256 << 10
"""Bytes of a command's output that come back."""
MAX_REPLY = MAX_OUTPUT * 2
"""Bytes after which a line from the agent is not one."""
RESEND = 20.0
"""Seconds after which a request that has no answer yet is sent again; the agent runs none twice."""

_REPLY = re.compile(rb"done (\d{1,9}) (\d{1,3}) ([01]) ([A-Za-z0-9+/=]*)$")


@dataclass(frozen=True)
class Reply:
    """How a command in dom0 ended."""

    status: int
    output: str
    truncated: bool


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
    """The host's end of a virtio-serial port; one command at a time. ``first`` is the last number used."""

    describe = "/usr/lib/smoke/agent describe"
    """The command that lists what the first agent's command has running."""
    stop = "/usr/lib/smoke/agent stop"
    """The command that kills it; fails where the first agent itself is gone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: int = 0) -> None:
        self._reader = reader
        self._writer = writer
        self._last = first

    async def wait_ready(self) -> None:
        """Return once the agent has said that it listens. Raises AgentLostError."""
        while (await self._line()).strip() != b"ready":
            pass

    async def run(self, command: str) -> Reply:
        """Run a shell command in dom0, however long it takes. Raises AgentLostError."""
        self._last += 1
        encoded = base64.b64encode(command.encode()).decode()
        request = f"run {self._last} {MAX_OUTPUT} {encoded}\n".encode()
        while True:
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(self._ask(request, self._last), RESEND)

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
