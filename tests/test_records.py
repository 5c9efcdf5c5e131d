"""JSON records: damaged ones end in one exception, never in a traceback."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import RecordError, decode, encode


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    hashes: dict[str, str] = {}


def test_a_record_comes_back_and_always_has_the_same_bytes() -> None:
    """Records are hashed and signed."""
    record = Record("ä", {"b": "1", "a": "2"})
    assert decode(encode(record), Record) == record
    assert encode(record) == encode(Record("ä", {"a": "2", "b": "1"}))


@given(data=st.binary(max_size=200))
def test_whatever_the_bytes_are_the_failure_is_one_of_records(data: bytes) -> None:
    """A flipped bit on a disk must not become a traceback."""
    with pytest.raises(RecordError):
        decode(data, Record)


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_changes_the_record_or_is_refused(position: int, bit: int) -> None:
    """A flipped bit on a disk must not become a traceback."""
    data = bytearray(encode(Record("small", {"a": "2"})))
    data[position % len(data)] ^= 1 << bit
    try:
        decode(bytes(data), Record)
    except RecordError:
        return


def test_deep_nesting_is_refused() -> None:
    """It would exhaust the stack of a careless reader."""
    with pytest.raises(RecordError):
        decode(b"[" * 100_000, Record)
