"""Whether a package names, and only names, the packages that its files need.

Which Arch package a library, an interpreter or a command comes from is in ``arch-packages.toml``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import msgspec

from pipeline.check.binaries import Binary
from pipeline.check.findings import Finding, error, warning
from pipeline.definition import read_toml
from pipeline.package import Member, Package

_RELATION = re.compile(r"[<>=].*")
"""A version that is asked for; PKGBUILD(5), "depends"."""


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``arch-packages.toml``: sonames, interpreters and commands, each with the package that has it."""

    libraries: dict[str, str]
    interpreters: dict[str, str]
    commands: dict[str, str]


@cache
def _table() -> _Table:
    return read_toml(Path(__file__).with_name("arch-packages.toml"), _Table)


def check(package: Package, binaries: list[Binary], together: Sequence[Package]) -> Iterator[Finding]:
    """Compare what the files need with depends; ``together`` are all packages of the build."""
    named = {_RELATION.sub("", word) for word in package.pkginfo.get("depend", ())}
    own = _sonames([package])
    siblings = _sonames([other for other in together if other.name in named])
    used: set[str] = set()
    for binary in binaries:
        for library in binary.elf.libraries:
            if library in own:
                continue
            owner = siblings.get(library) or _table().libraries.get(library)
            yield from _needed(package, binary.member, f"the library {library}", owner, named)
            used.add(owner or "")
    for member in package.files:
        word = _interpreter(member)
        if word is not None:
            owner = _table().interpreters.get(word)
            yield from _needed(package, member, f"the interpreter {word}", owner, named)
            used.add(owner or "")
    used |= _commands(package, named - used)
    used |= {other.name for other in together}
    for name in sorted(named - used):
        yield warning("unused-depends", package.name, name, "is in depends, but no file needs it")


def _needed(
    package: Package, member: Member, what: str, owner: str | None, named: set[str]
) -> Iterator[Finding]:
    if owner is None:
        yield error("unknown-need", package.name, member.path, f"needs {what}, of no package known")
    elif owner not in named and owner != package.name:
        yield error("depends", package.name, member.path, f"needs {what} of {owner}, not in depends")


def _sonames(packages: Sequence[Package]) -> dict[str, str]:
    """The names of the libraries that packages bring, each with its package."""
    return {
        member.path.rpartition("/")[2]: package.name
        for package in packages
        for member in package.files
        if not member.is_folder and ".so" in member.path
    }


def _interpreter(member: Member) -> str | None:
    """The program that a script is for; None where it is not one to be run."""
    content = member.content or b""
    if not content.startswith(b"#!") or not member.permissions & 0o111:
        return None
    words = content.split(b"\n", 1)[0][2:].decode("utf-8", "replace").split()
    if words and words[0].endswith("/env"):
        words = [word for word in words[1:] if not word.startswith("-")]
    return words[0].rpartition("/")[2] if words else ""


def _commands(package: Package, wanted: set[str]) -> set[str]:
    """Those of ``wanted`` packages one of whose commands a script, a unit or the install script names."""
    texts = [package.install or b""]
    texts += [m.content for m in package.files if m.content is not None and _is_text(m)]
    found: set[str] = set()
    for command, owner in _table().commands.items():
        if owner in wanted - found:
            pattern = re.compile(rb"(?<![\w.-])" + re.escape(command.encode()) + rb"(?![\w.-])")
            if any(pattern.search(text) for text in texts):
                found.add(owner)
    return found


def _is_text(member: Member) -> bool:
    return b"\0" not in (member.content or b"")[:1024] and not member.path.startswith("usr/share/")
