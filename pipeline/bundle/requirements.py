"""What packages need of the machine that installs them, read out of the packages themselves."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

from pipeline import package as packages
from pipeline.bundle.manifest import Requirements
from pipeline.elf import DAMAGE

# The first pacman that knows what our packages hold (.MTREE), and the first that reads zstd (pacman's NEWS).
_PACMAN, _PACMAN_ZSTD = "4.1", "5.2"

_GLIBC = re.compile(r"GLIBC_(2(?:\.[0-9]{1,9})+)")
_MOST = 1_000
"""A damaged file may claim to need 2**32 versions, all of them at one place."""


def architecture(paths: Iterable[Path]) -> str:
    """The only architecture that package files are for, as uname -m says it; ``any`` where any will do.

    Raises PackageError, also where they are for more than one.
    """
    found = {packages.read(path).pkginfo.get("arch", ("any",))[0] for path in paths} - {"any"}
    if len(found) > 1:
        raise packages.PackageError(
            f"The packages are for more than one machine: {', '.join(sorted(found))}."
        )
    return found.pop() if found else "any"


def read(paths: Iterable[Path]) -> Requirements:
    """Read package files; raises PackageError."""
    paths = list(paths)
    needed = {v for path in paths for member in packages.read(path).files for v in _glibc(member.content)}
    zstd = any(path.suffix == ".zst" for path in paths)
    return Requirements(glibc=max(needed, key=order, default=None), pacman=_PACMAN_ZSTD if zstd else _PACMAN)


def order(version: str) -> tuple[int, ...]:
    """Make numbers of a version such as 2.34, so that versions can be compared."""
    return tuple(int(number) for number in version.split("."))


def _glibc(content: bytes | None) -> Iterator[str]:
    """The versions of glibc's symbols that an ELF file needs (its .gnu.version_r section)."""
    if content is None or not content.startswith(b"\x7fELF"):
        return
    try:
        names = list(itertools.islice(_versions(ELFFile(io.BytesIO(content))), _MOST))
    except DAMAGE:
        return  # `check` names files that are no proper ELF
    yield from (match[1] for name in names if (match := _GLIBC.fullmatch(name)))


def _versions(file: ELFFile) -> Iterator[str]:
    for section in file.iter_sections():
        if isinstance(section, GNUVerNeedSection):
            for library, versions in section.iter_versions():
                yield str(library.name)
                yield from (version.name for version in versions)
