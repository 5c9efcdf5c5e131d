"""A machine behind a network link of a given rate: a network namespace at the end of a veth pair."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

NEAR, FAR = "10.212.7.1", "10.212.7.2"
"""The addresses of this end and of the other."""


@dataclass(frozen=True)
class Link:
    """A link: the network namespace at its far end, and Mbit per second, both ways (0: all that it gives)."""

    namespace: str
    mbit: int

    def __str__(self) -> str:
        """How a benchmark names it."""
        return f"{self.mbit} Mbit/s" if self.mbit else "unlimited link"


@contextlib.contextmanager
def link(mbit: int) -> Iterator[Link]:
    """Lay a link, and take it away afterwards; needs root."""
    name = f"b{secrets.token_hex(3)}"
    _ip("netns", "add", name)
    try:
        _ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        _ip("addr", "add", f"{NEAR}/30", "dev", f"{name}a")
        _ip("link", "set", f"{name}a", "up")
        _ip("-n", name, "addr", "add", f"{FAR}/30", "dev", f"{name}b")
        _ip("-n", name, "link", "set", f"{name}b", "up")
        if mbit:
            _shape([], f"{name}a", mbit)
            _shape(["ip", "netns", "exec", name], f"{name}b", mbit)
        yield Link(name, mbit)
    finally:
        # The pair goes with the namespace, but only when its last process has: the name is free at once so.
        subprocess.run(["ip", "link", "del", f"{name}a"], check=False)
        _ip("netns", "del", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _shape(prefix: list[str], device: str, mbit: int) -> None:
    """Let a device send so fast and no faster (tc-tbf(8))."""
    shape = ["tbf", "rate", f"{mbit}mbit", "burst", "256k", "latency", "50ms"]
    subprocess.run([*prefix, "tc", "qdisc", "add", "dev", device, "root", *shape], check=True)
