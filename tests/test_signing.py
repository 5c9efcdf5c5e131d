"""Signatures: what a stranger's machine believes, so every way to be wrong has its own name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import signing
from pipeline.errors import HostError, UsageError
from pipeline.signing import Status, judge, keyring
from tests import programs
from tests.keys import LONG_AGO, Key, some

pytestmark = pytest.mark.skipif(not shutil.which("gpg-agent"), reason="gpg-agent is not installed")


@pytest.fixture(scope="module")
def keys() -> Iterator[dict[str, Key]]:
    with some() as made:
        yield made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small-1-1-any.pkg.tar.xz"
    path.write_bytes(b"package" * 100)
    return path


def verdict(file: Path, *key_files: Path) -> signing.Signature:
    with keyring(*key_files) as ring:
        return ring.verify(file, file.with_name(f"{file.name}.sig"))


def test_what_is_signed_is_good_for_those_who_have_the_key(
    file: Path, keys: dict[str, Key], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or nobody could tell a maintainer's package from another one."""
    mine = keys["mine"]
    monkeypatch.setenv("GNUPGHOME", str(mine.home))
    signature = signing.sign(file, mine.fingerprint)
    assert not signature.read_bytes().startswith(b"-----")  # pacman wants it binary
    monkeypatch.setenv("GNUPGHOME", "/nonexistent")
    assert verdict(file, mine.file) == signing.Signature(Status.GOOD, mine.fingerprint)
    assert verdict(file, keys["other"].file).status is Status.UNKNOWN_KEY
    assert verdict(file, keys["other"].file, mine.file).status is Status.GOOD
    assert verdict(file).status is Status.UNKNOWN_KEY


def test_each_bad_signature_has_its_own_name(file: Path, keys: dict[str, Key]) -> None:
    """An expired key wants a new one from its owner, a revoked one an alarm, an unknown one a question."""
    assert verdict(file, keys["mine"].file).status is Status.MISSING
    old = keys["old"]
    old.sign(file, "--faked-system-time", "20200601T000000")
    assert verdict(file, old.file) == signing.Signature(Status.EXPIRED_KEY, old.fingerprint)
    signature = keys["mine"].sign(file)
    file.write_bytes(file.read_bytes() + b"!")
    assert verdict(file, keys["mine"].file).status is Status.BAD
    signature.write_bytes(b"noise" * 20)
    assert verdict(file, keys["mine"].file).status is Status.UNREADABLE
    signature.write_bytes(b"\0" * (1 << 20))
    assert verdict(file, keys["mine"].file).status is Status.UNREADABLE


def test_a_signature_that_was_made_to_expire(file: Path, keys: dict[str, Key]) -> None:
    """Or it would count for ever."""
    ancient = keys["ancient"]
    ancient.sign(file, *LONG_AGO, "--default-sig-expire", "1d")
    assert verdict(file, ancient.file) == signing.Signature(Status.EXPIRED, ancient.fingerprint)


def test_a_revoked_key_is_told_from_an_expired_one(file: Path) -> None:
    """A stolen key must not pass for one that is merely old."""
    with some() as keys:
        keys["mine"].sign(file)
        keys["mine"].revoke()
        assert verdict(file, keys["mine"].file) == signing.Signature(
            Status.REVOKED_KEY, keys["mine"].fingerprint
        )


def test_signing_without_the_secret_key_is_wrong_use(
    file: Path, keys: dict[str, Key], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a typing mistake in the settings would look like a broken gpg."""
    monkeypatch.setenv("GNUPGHOME", str(keys["mine"].home))
    with pytest.raises(UsageError, match="no secret key"):
        signing.sign(file, keys["other"].fingerprint)
    assert not file.with_name(f"{file.name}.sig").exists()


def test_an_expired_key_does_not_sign(
    file: Path, keys: dict[str, Key], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a release would go out that every pacman refuses."""
    monkeypatch.setenv("GNUPGHOME", str(keys["old"].home))
    with pytest.raises((UsageError, HostError), match=r"has no|could not|cannot sign"):
        signing.sign(file, keys["old"].fingerprint)
    assert not file.with_name(f"{file.name}.sig").exists()


def test_a_file_that_is_no_key_is_named(file: Path, tmp_path: Path) -> None:
    """Or everything would look unsigned."""
    for path, problem in ((file, "does not hold"), (tmp_path / "none.asc", "is missing")):
        with pytest.raises(UsageError, match=problem), keyring(path):
            pass


@settings(max_examples=25, deadline=None)
@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_flipped_bit_of_a_signature_is_good_for_other_bytes(
    position: int, bit: int, flipped: tuple[Path, bytes, Path]
) -> None:
    """A signature may be damaged in a part that nobody reads, but must never cover another file."""
    file, good, key = flipped
    damaged = bytearray(good)
    damaged[position % len(good)] ^= 1 << bit
    with keyring(key) as ring:
        assert ring.verify_bytes(file.read_bytes() + b"!", bytes(damaged)).status is not Status.GOOD


@pytest.fixture(scope="module")
def flipped(keys: dict[str, Key], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, Path]:
    file = tmp_path_factory.mktemp("flipped") / "file"
    file.write_bytes(b"package")
    return file, keys["mine"].sign(file).read_bytes(), keys["mine"].file


@given(st.text())
def test_no_noise_of_gpg_is_good(noise: str) -> None:
    """A notation in a signature, which gpg prints, must not pass for its verdict."""
    assert judge(noise).status is not Status.GOOD
    assert judge(f"[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG {noise}").status is not Status.GOOD


def test_the_environment_of_this_host_has_no_say(
    file: Path, keys: dict[str, Key], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key in somebody's own keyring must not make a bundle trusted."""
    keys["other"].sign(file)
    monkeypatch.setenv("GNUPGHOME", str(keys["other"].home))
    assert verdict(file, keys["mine"].file).status is Status.UNKNOWN_KEY
    assert os.environ["GNUPGHOME"] == str(keys["other"].home)


@pytest.mark.parametrize("instead", ["exit 2", "exit 0", "echo garbage", "kill -SEGV $$"])
def test_a_broken_gpg_is_not_told_as_a_wrong_key(
    file: Path, keys: dict[str, Key], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instead: str
) -> None:
    """The maintainer would ask for another key, and another, and sign with nothing."""
    programs.instead(monkeypatch, tmp_path, "gpg", instead)
    with pytest.raises(HostError, match="gpg"):
        verdict(file, keys["mine"].file)
    with pytest.raises(HostError, match="gpg"):
        signing.sign(file, keys["mine"].fingerprint)
    assert not file.with_name(f"{file.name}.sig").exists()
