"""What the pipeline needs from outside: where it may be had, and which bytes it must be."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9@._+~:-]*$", max_length=255)]
Url = Annotated[str, msgspec.Meta(pattern=r"^(debian:[a-z]|https?://[^/])[^\s]*$")]


Commit = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{40}$")]
# A fragment would end up in what makepkg adds to the URL.
GitUrl = Annotated[
    str, msgspec.Meta(pattern=r"^((https?|ssh|git)://[A-Za-z0-9\[]|file:///)[^\s#]*$", max_length=1000)
]
# git-check-ref-format(1), narrowed to what projects use.
Tag = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/+-]*[A-Za-z0-9+])?$", max_length=200)]
# An SPDX licence expression (SPDX specification, Annex D) and a version, for the bill of materials.
License = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9.+()-][A-Za-z0-9.+() -]*$", max_length=200)]
Version = Annotated[str, msgspec.Meta(pattern=r"^[^\s]+$", max_length=100)]
FolderName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9@._+~-]*$", max_length=200)]
Fingerprint = Annotated[str, msgspec.Meta(pattern="^[0-9A-F]{40}$")]
ProjectPath = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]*$")]


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One pinned file.

    ``urls`` are tried in order; ``debian:pool/...`` names a file that every Debian mirror carries.
    ``size`` is in bytes. ``sha256`` is lower-case hexadecimal and is also the file's name in the store.
    ``version`` and ``license`` are those of what is in it.
    """

    name: FileName
    urls: Annotated[tuple[Url, ...], msgspec.Meta(min_length=1)]
    size: Annotated[int, msgspec.Meta(ge=1)]
    sha256: Sha256
    version: Version | None = None
    license: License | None = None

    @property
    def pin(self) -> str:
        """What fixes its bytes, for messages."""
        return f"{self.size} bytes, SHA-256 {self.sha256}"


EXPORT_FORMAT = 1
"""Counts up with every change of the bytes that pipeline.git.export makes of a commit."""


class Submodules(StrEnum):
    """What becomes of a commit's submodules, whose files lie in repositories of their own."""

    REFUSED = "refused"
    """A submodule is an error: nothing of a source may be left out in silence."""
    EMPTY = "empty"
    """They become empty folders, as in a plain clone."""


class GitSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One pinned commit of a git repository; ``[[git]]`` in a release file.

    ``name`` is the folder that it unpacks to, and makepkg's name for it. ``urls`` are tried in order.
    ``commit`` is the full id. ``tag`` is a tag that must point to the commit; where ``key`` is given, it
    must be signed by the OpenPGP key of that fingerprint (40 upper-case hexadecimal digits), which
    ``key_file`` holds, armored; its path counts from the project. ``submodules`` says whether the commit
    may have any. ``version`` and ``license`` are those of what is in it.
    """

    name: FolderName
    urls: Annotated[tuple[GitUrl, ...], msgspec.Meta(min_length=1)]
    commit: Commit
    tag: Tag | None = None
    key: Fingerprint | None = None
    key_file: ProjectPath | None = None
    submodules: Submodules = Submodules.REFUSED
    version: Version | None = None
    license: License | None = None

    def __post_init__(self) -> None:
        if (self.key is None) != (self.key_file is None):
            raise ValueError("`key` and `key_file` go together")
        if self.key is not None and self.tag is None:
            raise ValueError("`key` needs a `tag` that it has signed")

    @property
    def file_name(self) -> str:
        """What its export is called where a build finds it."""
        return f"{self.name}.tar"

    @property
    def pin(self) -> str:
        """What fixes its bytes, for messages."""
        return f"git commit {self.commit}"

    @property
    def identity(self) -> tuple[str | int, ...]:
        """All that fixes the bytes of its export."""
        return self.name, self.commit, self.submodules.value, EXPORT_FORMAT
