"""Signed tags, judged by gpg with one key and nothing else.

Formats: the tag object (git-tag(1)): header lines, an empty line, the message, and the armored
signature over all before it; gpg's status lines (GnuPG's doc/DETAILS).
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.run import run
from pipeline.source import GitSource
from pipeline.transport import RefusedError

_BEGIN = b"-----BEGIN PGP SIGNATURE-----\n"
_OTHER = re.compile(rb"^-----BEGIN (SSH SIGNATURE|SIGNED MESSAGE)-----$", re.MULTILINE)
_STATUS = "[GNUPG:] "


class TagError(RefusedError):
    """A tag does not point to the pinned commit."""


class SignatureError(RefusedError):
    """A tag is not signed by the pinned key."""


@dataclass(frozen=True)
class TagObject:
    """A tag object: what it names, its own name, and the parts that its signature is made over and of."""

    target: str
    type: str
    name: str
    payload: bytes
    signature: bytes


def parse(data: bytes) -> TagObject:
    """Read a tag object; raises ValueError where it is not one."""
    head = data.partition(b"\n\n")[0]
    match = re.match(rb"object ([0-9a-f]{40})\ntype ([a-z]+)\ntag ([^\n]+)(\n|$)", head)
    if match is None:
        raise ValueError("not a tag object")
    begin = data.rfind(b"\n" + _BEGIN) + 1
    payload, signature = (data[:begin], data[begin:]) if begin else (data, b"")
    target, kind, name = (os.fsdecode(group) for group in match.groups()[:3])
    return TagObject(target, kind, name, payload, signature)


def verify(data: bytes, source: GitSource, project: Path) -> None:
    """See that a tag object's content names the source's tag and commit and is signed by its key.

    Raises TagError, SignatureError saying what is wrong with the signature, UsageError where the key
    file does not hold the key, and ToolMissingError.
    """
    assert source.key is not None
    assert source.key_file is not None
    try:
        tag = parse(data)
    except ValueError as e:
        raise TagError(f"its tag {source.tag} is {e}") from e
    if (tag.name, tag.type, tag.target) != (source.tag, "commit", source.commit):
        raise TagError(
            f"its tag {source.tag} says that it is {tag.name!r} of {tag.type} {tag.target} instead"
        )
    if not tag.signature:
        kind = "not signed with OpenPGP" if _OTHER.search(data) else "not signed"
        raise SignatureError(f"its tag {source.tag} is {kind}")
    problem = check(tag.payload, tag.signature, source.key, project / source.key_file)
    if problem is not None:
        raise SignatureError(f"its tag {source.tag} {problem}")


def check(payload: bytes, signature: bytes, key: str, key_file: Path) -> str | None:
    """Return what is wrong with a detached signature, or None where the key has made it.

    ``key`` is the primary key's fingerprint. Raises UsageError and ToolMissingError.
    """
    # Not in the store: the path of an agent's socket may have 107 bytes at the most.
    with tempfile.TemporaryDirectory(prefix="gpg-") as name:
        home = Path(name)
        _import(home, key, key_file)
        (home / "payload").write_bytes(payload)
        (home / "signature").write_bytes(signature)
        output = _gpg(home, "--status-fd", "1", "--verify", home / "signature", home / "payload")
    return judge(output, key)


def judge(output: str, key: str) -> str | None:
    """Read gpg's status lines about one signature; return what is wrong, or None."""
    lines = [line.removeprefix(_STATUS).split() for line in output.splitlines() if line.startswith(_STATUS)]
    words = {line[0]: line for line in lines if line}
    if sum(line[:1] == ["NEWSIG"] for line in lines) != 1:
        return "has a signature that is damaged, or several"
    if "BADSIG" in words:
        return "was changed after it was signed"
    if "NO_PUBKEY" in words:
        return f"is signed by another key, {words['NO_PUBKEY'][-1]}, instead of {key}"
    if "REVKEYSIG" in words:
        return f"is signed by the key {key}, which was revoked"
    if "EXPKEYSIG" in words:
        return f"is signed by the key {key}, which has expired"
    if "EXPSIG" in words:
        return "has a signature that has expired"
    if "GOODSIG" not in words or "VALIDSIG" not in words:
        return "has a signature that gpg cannot check"
    if words["VALIDSIG"][-1] != key:
        return f"is signed by another key, {words['VALIDSIG'][-1]}, instead of {key}"
    return None


def _import(home: Path, key: str, key_file: Path) -> None:
    if not key_file.is_file():
        raise UsageError(f"{key_file} is missing, which should hold the key {key}.")
    _gpg(home, "--import", key_file)
    listed = _gpg(home, "--with-colons", "--fingerprint", "--list-keys")
    # The fpr line of a primary key follows its pub line; those of subkeys follow sub lines.
    if re.search(rf"^pub:[^\n]*\nfpr:+{key}:", listed, re.MULTILINE) is None:
        raise UsageError(f"{key_file} does not hold the key {key}.")


def _gpg(home: Path, *argv: str | Path) -> str:
    env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "GNUPGHOME": os.fspath(home)}
    options = ("--batch", "--no-tty", "--no-autostart", "--no-auto-key-retrieve", "--trust-model", "always")
    return run(["gpg", *options, *argv], env=env, expect=None, timeout=60).output
