"""OpenPGP signatures, by gpg: made with the user's own agent, judged with the keys that one names.

Format of gpg's verdicts: the status lines of GnuPG's doc/DETAILS, "General status codes".
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from pipeline import files, openpgp
from pipeline.errors import CommandError, FailureError, HostError, UsageError
from pipeline.run import run
from pipeline.source import Fingerprint

_STATUS = "[GNUPG:] "
_MAX_SIGNATURE = 64 << 10
# gpg(1): no configuration, agent or key server of this host may reach the verdict.
_STRICT = ("--batch", "--no-tty", "--no-autostart", "--no-auto-key-retrieve", "--trust-model", "always")
_BROKEN = "gpg --version says whether it is the one that you expect."
_ENDED = {"KEYEXPIRED", "KEYREVOKED", "SIGEXPIRED"}


class SignatureProblemError(FailureError):
    """Something is not signed by a key that counts."""


class Status(StrEnum):
    """What gpg says of a signature; the value completes the sentence "it is …"."""

    GOOD = "good"
    BAD = "changed after it was signed"
    EXPIRED_KEY = "signed by a key that has expired"
    REVOKED_KEY = "signed by a key that was revoked"
    EXPIRED = "signed, but the signature has expired"
    LOOSE = "signed, but the signature has bytes that no signature covers"
    UNKNOWN_KEY = "signed by an unknown key"
    UNREADABLE = "signed with something that gpg cannot check"
    MISSING = "not signed"


@dataclass(frozen=True)
class Signature:
    """A verdict; ``key`` is the primary key's fingerprint where gpg knows it, else the signer's key id.

    ``signer`` is the fingerprint of the key that made it, which may be a subkey of that.
    """

    status: Status
    key: str = ""
    signer: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.status}: {self.key}" if self.key else str(self.status)


@dataclass(frozen=True)
class Keyring:
    """Public keys that signatures are judged with, and nothing else; see `keyring`."""

    home: Path
    fingerprints: tuple[Fingerprint, ...] = field(default=())

    def with_own(self, key: str) -> Keyring:
        """Add a key of the user's own keyring; raises UsageError where it is not there."""
        public = run(["gpg", "--batch", "--armor", "--export", key], expect=None, merge_stderr=False).output
        if not public:
            raise UsageError(f"gpg has no key {key}.", hint="gpg --list-keys lists those that it has.")
        run(["gpg", *_STRICT, "--homedir", self.home, "--import"], input=public.encode(), expect=None)
        return Keyring(self.home, (*self.fingerprints, key))

    def verify(self, file: Path, signature: Path, *, exact: bool = False) -> Signature:
        """Judge a detached signature of a file; ``exact`` is for those in which no bit may be another."""
        if not signature.is_file():
            return Signature(Status.MISSING)
        if signature.stat().st_size > _MAX_SIGNATURE:
            return Signature(Status.UNREADABLE)
        found = judge(_gpg(self.home, *_STRICT, "--status-fd", "1", "--verify", signature, file))
        good = found.status is Status.GOOD
        if exact and good and not openpgp.is_exact(signature.read_bytes(), found.signer, file):
            return replace(found, status=Status.LOOSE)
        return found

    def verify_bytes(self, data: bytes, signature: bytes | None, *, exact: bool = False) -> Signature:
        """Judge a detached signature of bytes; see verify."""
        if signature is None:
            return Signature(Status.MISSING)
        (self.home / "data").write_bytes(data)
        (self.home / "data.sig").write_bytes(signature)
        return self.verify(self.home / "data", self.home / "data.sig", exact=exact)


@contextlib.contextmanager
def keyring(*key_files: Path, own: str = "") -> Iterator[Keyring]:
    """Give a keyring of the keys in files, armored or binary, and of the user's own key ``own``, if any.

    Raises UsageError for a file without a public key, and ToolMissingError.
    """
    # Not below the store: the path of an agent's socket may have 107 bytes at the most.
    with tempfile.TemporaryDirectory(prefix="gpg-") as name:
        home = Path(name)
        seen: set[str] = set()
        for key_file in key_files:
            if not key_file.is_file():
                raise UsageError(f"{key_file} is missing, which should hold a public key.")
            _gpg(home, *_STRICT, "--import", key_file)
            now = set(_primary_keys(_gpg(home, *_STRICT, "--with-colons", "--fingerprint", "--list-keys")))
            if not now - seen and len(key_files) == 1:
                if not _gpg(home, "--version").startswith("gpg (GnuPG)"):
                    raise HostError("gpg does not work on this host.", hint=_BROKEN)
                raise UsageError(f"{key_file} does not hold a public key.")
            seen |= now
        ring = Keyring(home, tuple(sorted(seen)))
        yield ring.with_own(own) if own else ring


def sign(path: Path, key: str) -> Path:
    """Sign a file as `signature` does, and return the path of the signature, ``<path>.sig``."""
    target = path.with_name(f"{path.name}.sig")
    files.write_bytes(target, signature(path, key))
    return target


def signature(path: Path, key: str) -> bytes:
    """Sign a file with the user's own key and agent, and return the signature.

    It is binary and detached, as pacman wants it. Raises UsageError where gpg has no such secret key, and
    HostError.
    """
    with tempfile.TemporaryDirectory(prefix="sig-") as folder:
        output = Path(folder) / "sig"
        env = {**os.environ, "LC_ALL": "C"}
        options = ("--yes", "--no-armor", "--status-fd", "1", "--local-user", key)
        try:
            said = run(["gpg", *options, "--output", output, "--detach-sign", path], env=env).output
        except CommandError as e:
            if "No secret key" in (e.hint or ""):
                raise UsageError(
                    f"gpg has no secret key {key} to sign with.", hint="gpg --list-secret-keys lists them."
                ) from e
            raise HostError(f"gpg could not sign {path.name} with the key {key}.", hint=e.hint) from e
        for word in _ENDED & {line[0] for line in _status_lines(said) if line}:
            raise UsageError(f"The key {key} cannot sign any more: {word}.")
        if not output.is_file():
            raise HostError(f"gpg ended as if it had signed {path.name}, and has not.", hint=_BROKEN)
        return output.read_bytes()


def judge(output: str) -> Signature:
    """Read gpg's status lines about one signature."""
    lines = _status_lines(output)
    words: Mapping[str, list[str]] = {line[0]: line for line in lines if line}
    if sum(line[:1] == ["NEWSIG"] for line in lines) != 1:
        return Signature(Status.UNREADABLE)
    valid = words.get("VALIDSIG", [])
    key, signer = (valid[-1], valid[1]) if len(valid) > 1 else ("", "")
    if "BADSIG" in words:
        return Signature(Status.BAD, words["BADSIG"][1] if len(words["BADSIG"]) > 1 else "")
    if "NO_PUBKEY" in words:
        return Signature(Status.UNKNOWN_KEY, words["NO_PUBKEY"][-1])
    for word, status in (
        ("REVKEYSIG", Status.REVOKED_KEY),
        ("EXPKEYSIG", Status.EXPIRED_KEY),
        ("EXPSIG", Status.EXPIRED),
    ):
        if word in words:
            return Signature(status, key, signer)
    if "GOODSIG" not in words or not all(re.fullmatch("[0-9A-F]{40}", word) for word in (key, signer)):
        return Signature(Status.UNREADABLE)
    return Signature(Status.GOOD, key, signer)


def _status_lines(output: str) -> list[list[str]]:
    return [line.removeprefix(_STATUS).split() for line in output.splitlines() if line.startswith(_STATUS)]


def _primary_keys(listed: str) -> list[str]:
    # The fpr line of a primary key follows its pub line; those of subkeys follow sub lines.
    return re.findall(r"^pub:[^\n]*\nfpr:+([0-9A-F]{40}):", listed, re.MULTILINE)


def _gpg(home: Path, *argv: str | Path) -> str:
    env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "GNUPGHOME": os.fspath(home)}
    return run(["gpg", *argv], env=env, expect=None, timeout=60).output
