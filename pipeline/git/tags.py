"""Signed tags, judged by gpg with one key and nothing else.

Format: the tag object (git-tag(1)): header lines, an empty line, the message, and the armored
signature over all before it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from pipeline import signing
from pipeline.errors import UsageError
from pipeline.signing import Signature, Status
from pipeline.source import GitSource
from pipeline.transport import RefusedError

_BEGIN = b"-----BEGIN PGP SIGNATURE-----\n"
_OTHER = re.compile(rb"^-----BEGIN (SSH SIGNATURE|SIGNED MESSAGE)-----$", re.MULTILINE)


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
    wrong = check(tag.payload, tag.signature, source.key, project / source.key_file)
    if wrong is not None:
        raise SignatureError(f"its tag {source.tag} {wrong}")


def check(payload: bytes, signature: bytes, key: str, key_file: Path) -> str | None:
    """Return what is wrong with a detached signature, or None where the key has made it.

    ``key`` is the primary key's fingerprint. Raises UsageError and ToolMissingError.
    """
    with signing.keyring(key_file) as keyring:
        if key not in keyring.fingerprints:
            raise UsageError(f"{key_file} does not hold the key {key}.")
        found = keyring.verify_bytes(payload, signature)
    return problem(found, key)


def problem(found: Signature, key: str) -> str | None:
    """Say what is wrong with a signature that the key should have made, or None."""
    if found.status is Status.GOOD and found.key == key:
        return None
    if found.status in (Status.GOOD, Status.UNKNOWN_KEY):
        return f"is signed by another key, {found.key}, instead of {key}"
    if found.status is Status.BAD:
        return "was changed after it was signed"
    if found.status is Status.UNREADABLE:
        return "has a signature that is damaged, or several"
    return f"is {found}"
