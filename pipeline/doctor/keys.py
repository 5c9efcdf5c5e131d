"""The keys that the settings name: those that sign here, and those of others that count."""

from __future__ import annotations

import time
from collections.abc import Iterator

from pipeline import signing
from pipeline.doctor.finding import Finding, State, Subject
from pipeline.errors import PipelineError
from pipeline.run import run

_PART = "keys"
_SOON = 30 * 86400


def keys(subject: Subject) -> Iterator[Finding]:
    """Look at ``signing_key`` and ``trusted_keys``."""
    key = subject.settings.signing_key
    if key:
        yield signing_key(key, time.time())
    else:
        says = "None is set: packages stay unsigned."
        remedy = "To sign: the setting signing_key is the key's fingerprint (gpg --list-secret-keys)."
        yield Finding(part=_PART, what="signing key", state=State.NOTE, says=says, remedy=remedy)
    for path in subject.settings.key_files:
        try:
            with signing.keyring(path) as ring:
                says = f"Holds {', '.join(ring.fingerprints)}."
            yield Finding(part=_PART, what=str(path), state=State.FINE, says=says)
        except PipelineError as e:
            remedy = (
                "Export it there: gpg --armor --export FINGERPRINT > FILE; or take it out of trusted_keys."
            )
            yield Finding(part=_PART, what=str(path), state=State.TROUBLE, says=e.message, remedy=remedy)


def signing_key(key: str, now: float) -> Finding:
    """Whether gpg has the secret key, and it may sign at the time ``now``, in seconds since 1970.

    Format of gpg's list: GnuPG's doc/DETAILS, "Format of the colon listings".
    """

    def finding(state: State, says: str, remedy: str = "") -> Finding:
        return Finding(part=_PART, what="signing key", state=state, says=says, remedy=remedy)

    command = ["gpg", "--batch", "--with-colons", "--list-secret-keys", key]
    said = run(command, expect=None, merge_stderr=False, timeout=30).output
    rows = [row.split(":") for row in said.splitlines()]
    primary = next((row for row in rows if row[0] == "sec"), None)
    if primary is None:
        return finding(
            State.TROUBLE,
            f"gpg has no secret key {key}.",
            "gpg --import it, or set signing_key to one it has.",
        )
    if primary[1] in ("e", "r", "d", "i"):
        why = {"e": "has expired", "r": "was revoked"}.get(primary[1], "is not valid")
        remedy = (
            "gpg --quick-set-expire prolongs it." if primary[1] == "e" else "Set signing_key to another one."
        )
        return finding(State.TROUBLE, f"{key} {why}.", remedy)
    if "S" not in primary[11]:
        return finding(State.TROUBLE, f"{key} cannot sign.", "gpg --quick-add-key adds a subkey that can.")
    if primary[6].isdigit() and int(primary[6]) - now < _SOON:
        days = int((int(primary[6]) - now) // 86400)
        return finding(State.NOTE, f"{key} expires in {days} days.", "gpg --quick-set-expire prolongs it.")
    return finding(State.FINE, f"gpg has the secret key {key}, and it may sign.")
