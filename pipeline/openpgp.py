"""Whether every byte of an OpenPGP signature counts: gpg lets some of them be anything.

Format: RFC 4880, sections 4.2 (packet headers), 3.2 (numbers), 5.2.3 (signature packets, version 4).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

_SIGNATURE = 2
_HASHES = {2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512", 11: "sha224"}
"""RFC 4880, section 9.4."""
_ISSUER, _ISSUER_FINGERPRINT = 16, 33
"""The subpackets that need no signature, as they only name the key that is then tried."""


def is_exact(data: bytes, signer: str, file: Path) -> bool:
    """Whether a binary detached signature is one packet in which nothing can be changed unseen.

    A signature does not cover its own header, its numbers' bit counts, its unhashed subpackets and the two
    bytes of the hash that it repeats: these must be the only ones possible. ``signer`` is the fingerprint of
    the key that made it, 40 hexadecimal digits, and ``file`` what it is about. That the rest is right is for
    gpg to say.
    """
    try:
        packet = _packet(data)
        body = _Reader(packet)
        if body.number(1) != 4:
            return False
        body.take(2)  # type and key's algorithm, which the signature covers
        algorithm = body.number(1)
        hashed = body.number(2)
        body.take(hashed)
        unhashed = _Reader(body.take(body.number(2)))
        while unhashed.left:
            if not _names(unhashed.take(unhashed.number(1)), bytes.fromhex(signer)):
                return False
        # gpg compares them for some kinds of keys only.
        if body.take(2) != _digest(file, algorithm, packet[: 6 + hashed])[:2]:
            return False
        while body.left:
            bits = body.number(2)
            if int.from_bytes(body.take((bits + 7) // 8), "big").bit_length() != bits:
                return False
    except _CutOffError:
        return False
    return True


def _digest(file: Path, algorithm: int, covered: bytes) -> bytes:
    """The hash that is signed (RFC 4880, section 5.2.4); empty for a kind of hash that is unknown."""
    if (name := _HASHES.get(algorithm)) is None:
        return b""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.new(name, usedforsecurity=False))
    digest.update(covered + b"\x04\xff" + len(covered).to_bytes(4, "big"))
    return digest.digest()


class _CutOffError(ValueError):
    """There are fewer bytes than those before them say."""


class _Reader:
    """Takes bytes from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise _CutOffError
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")


def _packet(data: bytes) -> bytes:
    """The body of the one packet that the data must be, its length written as shortly as possible."""
    header = _Reader(data)
    tag = header.number(1)
    if tag == 0xC0 | _SIGNATURE:
        length = header.number(1)
        if length >= 192:
            length = ((length - 192) << 8) + header.number(1) + 192
    elif tag in (0x80 | _SIGNATURE << 2, 0x81 | _SIGNATURE << 2):
        wide = tag & 1
        length = header.number(1 + wide)
        if wide and length < 0x100:
            raise _CutOffError
    else:
        raise _CutOffError
    body = header.take(length)
    if header.left:
        raise _CutOffError
    return body


def _names(subpacket: bytes, signer: bytes) -> bool:
    kind, value = subpacket[:1], subpacket[1:]
    return (kind == bytes([_ISSUER]) and value == signer[-8:]) or (
        kind == bytes([_ISSUER_FINGERPRINT]) and value == b"\x04" + signer
    )
