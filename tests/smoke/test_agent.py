"""Talking with the agent: what dom0 sends is data, however it looks."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.smoke import agent as agent_module
from pipeline.smoke.agent import MAX_REPLY, Agent, Reply, parse_reply


def test_replies_are_read() -> None:
    """If this fails, every check fails, or one whose command prints nothing (it has happened)."""
    assert parse_reply(b"done 7 1 1 aGVsbG8=\n", 7) == Reply(1, "hello", True)
    assert parse_reply(b"done 7 0 0 \n", 7) == Reply(0, "", False)
    assert parse_reply(b"done 6 0 0 aGVsbG8=\n", 7) is None


@given(st.binary(max_size=200))
def test_no_line_makes_a_traceback(line: bytes) -> None:
    """If this fails, a broken dom0 ends the run with a traceback instead of a verdict."""
    parse_reply(line, 1)
    parse_reply(b"done 1 0 0 " + line, 1)


async def _ask(lines: list[bytes], limit: float = 5) -> tuple[Reply, bytes]:
    ours, theirs = socket.socketpair()
    with theirs:
        reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_REPLY)
        for line in lines:
            await asyncio.get_running_loop().sock_sendall(theirs, line)
        try:
            reply = await asyncio.wait_for(Agent(reader, writer).run("true"), limit)
            return reply, theirs.recv(1 << 16)
        finally:
            writer.close()


def test_noise_before_the_answer_is_passed_over() -> None:
    """If this fails, one stray line of dom0 makes the run fail."""
    noise = [b"ready\n", b"done 9 0 0 YQ==\n", b"done 1 0 0 !!!\n", b"\xff\x00\n", b"done 1 3 0 b2s=\n"]
    reply, request = asyncio.run(_ask(noise))
    assert reply == Reply(3, "ok", False)
    assert request == b"run 1 262144 dHJ1ZQ==\n"


def test_an_agent_that_is_silent_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a request lost while the agent opened its port anew is never answered."""
    monkeypatch.setattr(agent_module, "RESEND", 0.1)

    async def deaf() -> bytes:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_REPLY)
        asking = asyncio.ensure_future(Agent(reader, writer).run("true"))
        loop, got = asyncio.get_running_loop(), b""
        while got.count(b"\n") < 2:
            got += await loop.sock_recv(theirs, 100)
        await loop.sock_sendall(theirs, b"done 1 0 0 \n")
        assert await asking == Reply(0, "", False)
        writer.close()
        theirs.close()
        return got

    assert asyncio.run(deaf()) == b"run 1 262144 dHJ1ZQ==\n" * 2
