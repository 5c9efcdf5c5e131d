"""Signatures to the last bit: what gpg does not look at must not be anything, either."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import openpgp, signing
from pipeline.signing import Status
from tests import keys
from tests.keys import Key

FINGERPRINT = "0123456789ABCDEF0123456789ABCDEF01234567"


@pytest.fixture(scope="module")
def key() -> Iterator[Key]:
    if not shutil.which("gpg-agent"):
        pytest.skip("gpg-agent is not installed")
    with keys.some() as made:
        yield made["mine"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("signed") / "file"
    path.write_bytes(b"package")
    return path


@pytest.fixture(scope="module")
def signed(key: Key, file: Path) -> bytes:
    """A signature that gpg has made."""
    return key.sign(file).read_bytes()


def flipped(data: bytes, position: int, bit: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]


def test_what_gpg_writes_is_exact(key: Key, signed: bytes, file: Path) -> None:
    """Or every good signature would be refused."""
    assert openpgp.is_exact(signed, key.fingerprint, file)
    assert not openpgp.is_exact(signed, FINGERPRINT, file)


def test_what_gpg_overlooks_is_not_exact(key: Key, signed: bytes, file: Path) -> None:
    """With a bit of its length or of the issuer's id flipped, gpg still calls a signature good."""
    issuer = signed.rindex(bytes.fromhex(key.fingerprint)[-8:])
    overlooked = [flipped(signed, 1, 1), flipped(signed, issuer, 0), flipped(signed, issuer + 7, 7)]
    overlooked += [flipped(signed, issuer + 8, 0), flipped(signed, issuer + 9, 7)]
    with signing.keyring(key.file) as ring:
        for data in overlooked:
            assert ring.verify_bytes(b"package", data).status is Status.GOOD
            assert ring.verify_bytes(b"package", data, exact=True).status is Status.LOOSE
        assert ring.verify_bytes(b"package", signed, exact=True).status is Status.GOOD
    for position in (*range(2), *range(issuer - 4, issuer + 10)):
        for bit in range(8):
            assert not openpgp.is_exact(flipped(signed, position, bit), key.fingerprint, file), (
                position,
                bit,
            )


def test_nothing_may_be_added(key: Key, signed: bytes, file: Path) -> None:
    """A second packet, or a signature cut short."""
    for data in (signed + b"\0", signed * 2, signed[:-1], b""):
        assert not openpgp.is_exact(data, key.fingerprint, file)


@given(
    data=st.binary(max_size=100),
    head=st.sampled_from([b"", b"\x88\x20\x04", b"\x89\x01\x00\x04", b"\xc2\x30\x04"]),
)
def test_any_bytes_have_a_verdict(data: bytes, head: bytes) -> None:
    """Signatures come from other machines."""
    openpgp.is_exact(head + data, FINGERPRINT, Path(__file__))
