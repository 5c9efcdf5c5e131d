"""JSON records: what a run notes for later ones, and what comes from other machines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


class RecordError(ValueError):
    """Bytes are not the JSON of the record that they should be."""


def encode(record: msgspec.Struct) -> bytes:
    """Render a record for programs and people; the same one always gives the same bytes."""
    data = msgspec.json.encode(record, order="deterministic", enc_hook=os.fspath)
    return msgspec.json.format(data, indent=2) + b"\n"


def decode(data: bytes, kind: type[T]) -> T:
    """Read a record; raises RecordError, whatever the bytes are."""
    try:
        return msgspec.json.decode(data, type=kind, dec_hook=_path)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        # Text that is not UTF-8 is no DecodeError to msgspec.
        raise RecordError(str(e)) from e


def _path(kind: type, value: object) -> object:
    """Paths stand as text in a record."""
    if kind is not Path or not isinstance(value, str):
        raise NotImplementedError(f"no record holds a {kind.__name__}")
    return Path(value)
