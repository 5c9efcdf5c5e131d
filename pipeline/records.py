"""JSON records: what a run notes for later ones, and what comes from other machines."""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


class RecordError(ValueError):
    """Bytes are not the JSON of the record that they should be."""


def encode(record: msgspec.Struct) -> bytes:
    """Render a record for programs and people; the same one always gives the same bytes."""
    return msgspec.json.format(msgspec.json.encode(record, order="deterministic"), indent=2) + b"\n"


def decode(data: bytes, kind: type[T]) -> T:
    """Read a record; raises RecordError, whatever the bytes are."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        # Text that is not UTF-8 is no DecodeError to msgspec.
        raise RecordError(str(e)) from e
