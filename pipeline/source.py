"""A file that the pipeline needs from outside: where it may be had, and which bytes it must be."""

from __future__ import annotations

from typing import Annotated

import msgspec

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9@._+~:-]*$", max_length=255)]
Url = Annotated[str, msgspec.Meta(pattern=r"^(debian:[a-z]|https?://[^/])[^\s]*$")]


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One pinned file.

    ``urls`` are tried in order; ``debian:pool/...`` names a file that every Debian mirror carries.
    ``size`` is in bytes. ``sha256`` is lower-case hexadecimal and is also the file's name in the store.
    """

    name: FileName
    urls: Annotated[tuple[Url, ...], msgspec.Meta(min_length=1)]
    size: Annotated[int, msgspec.Meta(ge=1)]
    sha256: Sha256
