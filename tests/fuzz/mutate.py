"""Changes bytes as fuzzers do, from a seed: for runs without a coverage-guided fuzzer."""

from __future__ import annotations

import random

_INTERESTING = (
    b"\0",
    b"\xff",
    b"\n",
    b"\t",
    b"\x7f",
    b"-1",
    b"4294967296",
    b"1e999",
    b"[[[[",
    b'{"',
    b"\xed\xa0\x80",
)


def mutate(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Return a neighbour of ``data``; ``others`` are inputs that parts may be taken from."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at = chance.randrange(len(found) + 1)
        match chance.randrange(7):
            case 0 if found:
                found[at % len(found)] ^= 1 << chance.randrange(8)
            case 1:
                found[at:at] = chance.choice(_INTERESTING)
            case 2:
                del found[at : at + chance.choice((1, 1, 2, 16, 200))]
            case 3:
                found[at:at] = found[at : at + chance.randrange(1, 64)] * chance.choice((1, 2, 50))
            case 4:
                other = chance.choice(others)
                start = chance.randrange(len(other) + 1)
                found[at:at] = other[start : start + chance.randrange(1, 64)]
            case 5:
                del found[at:]
            case _:
                found[at : at + 1] = bytes([chance.randrange(256)])
    return bytes(found[: 1 << 20])
