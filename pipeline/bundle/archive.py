"""The bundle as a stream of bytes: a plain ustar archive whose every header follows from its manifest.

``manifest.json`` comes first, then, where the bundle is signed, ``manifest.json.sig``, then the files in the
manifest's order. Every header is fully determined by a file's name and size, so the reader does not interpret
any: it compares with the one that the writer would have written. Links, devices, foreign names, surplus or
repeated members have no place to stand in. Format: POSIX pax(1), "ustar Interchange Format"; tar(1) reads it.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

from pipeline.bundle.manifest import MAX_SIZE, BundleError, Entry, Manifest, decode
from pipeline.errors import IntegrityError

MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"

_MAX_SIGNATURE = 64 << 10
_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20
_END = b"\0" * (2 * _BLOCK)


class Writable(Protocol):
    """What a bundle is written to: a file or a pipe."""

    def write(self, data: bytes, /) -> object:
        """Write all of the bytes."""


def write(
    out: Writable,
    manifest: bytes,
    signature: bytes | None,
    contents: Mapping[str, Path],
    on_bytes: Callable[[int], object] = lambda _: None,
) -> None:
    """Write a bundle to ``out``, in constant memory; ``contents`` says where each entry's file lies.

    ``on_bytes`` hears how many bytes of files went out. Raises IntegrityError for a file that is not what the
    manifest says of it.
    """
    write_member(out, MANIFEST, manifest)
    if signature is not None:
        write_member(out, SIGNATURE, signature)
    for entry in decode(manifest).entries:
        out.write(_header(entry.path, entry.size))
        _copy(entry, contents[entry.path], out, on_bytes)
        out.write(_padding(entry.size))
    out.write(_END)


def write_member(out: Writable, name: str, data: bytes) -> None:
    """Write one file: its header, its bytes, and the padding after them."""
    out.write(_header(name, len(data)) + data + _padding(len(data)))


def _copy(entry: Entry, path: Path, out: Writable, on_bytes: Callable[[int], object]) -> None:
    digest, left = hashlib.sha256(), entry.size
    with path.open("rb") as file:
        while left and (block := file.read(min(_CHUNK, left))):
            digest.update(block)
            out.write(block)
            on_bytes(len(block))
            left -= len(block)
        surplus = file.read(1)
    if left or surplus or digest.hexdigest() != entry.sha256:
        raise IntegrityError(f"{path} is not the file that goes by {entry.path}: its SHA-256 is another.")


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info.tobuf(tarfile.USTAR_FORMAT)


def _padding(size: int) -> bytes:
    return b"\0" * (-size % _BLOCK)


class Reader:
    """A bundle that is being read from a stream, which need not be seekable, once and in order.

    The manifest and its signature are read at once; nothing else is until `unpack`. Raises BundleError.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._next: bytes | None = None
        self.manifest_bytes = self._small(MANIFEST, MAX_SIZE)
        self.manifest: Manifest = decode(self.manifest_bytes)
        self.signature: bytes | None = None
        header = self._take(_BLOCK)
        if header[: len(SIGNATURE) + 1] == SIGNATURE.encode() + b"\0":
            self.signature = self._body(SIGNATURE, header, _MAX_SIGNATURE)
        else:
            self._next = header

    def unpack(self, folder: Path, on_bytes: Callable[[int], object] = lambda _: None) -> None:
        """Write the bundle's files below an empty folder, each hashed as it comes, to the last byte.

        ``on_bytes`` hears how many bytes of files came. Raises BundleError naming the first file that is not
        as the manifest says; what was written until then is the caller's to throw away.
        """
        for entry in self.manifest.entries:
            header, self._next = self._next or self._take(_BLOCK), None
            if header != _header(entry.path, entry.size):
                raise BundleError(f"The bundle does not go on with {entry.path} where its manifest says so.")
            path = folder / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            self._unpack(entry, path, on_bytes)
        end = (self._next or b"") + self._take(len(_END) - len(self._next or b""))
        if end != _END or self._stream.read(1):
            raise BundleError("The bundle holds more than its manifest says.")

    def _unpack(self, entry: Entry, path: Path, on_bytes: Callable[[int], object]) -> None:
        digest, left = hashlib.sha256(), entry.size
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        with open(fd, "wb", buffering=0) as file:
            while left:
                block = self._take(min(_CHUNK, left))
                digest.update(block)
                file.write(block)
                on_bytes(len(block))
                left -= len(block)
        if digest.hexdigest() != entry.sha256:
            raise BundleError(f"{entry.path} is damaged in the bundle: its SHA-256 is not {entry.sha256}.")
        self._skip_padding(entry.path, entry.size)

    def _small(self, name: str, limit: int) -> bytes:
        header = self._take(_BLOCK)
        if header[: len(name) + 1] != name.encode() + b"\0":
            raise BundleError("This is not a bundle: it does not begin with a manifest.")
        return self._body(name, header, limit)

    def _body(self, name: str, header: bytes, limit: int) -> bytes:
        try:
            size = int(header[124:135], 8)  # the size field of a ustar header
        except ValueError:
            size = -1
        if not 0 <= size <= limit or header != _header(name, size):
            raise BundleError(f"The bundle's {name} has a wrong header, or is larger than {limit} bytes.")
        data = self._take(size)
        self._skip_padding(name, size)
        return data

    def _skip_padding(self, name: str, size: int) -> None:
        if self._take(-size % _BLOCK).strip(b"\0"):
            raise BundleError(f"The bundle holds stray bytes after {name}.")

    def _take(self, count: int) -> bytes:
        parts = []
        while count:
            block = self._stream.read(count)
            if not block:
                raise BundleError("The bundle ends too early: it is incomplete.")
            parts.append(block)
            count -= len(block)
        return b"".join(parts)
