"""What packages need of the machine that installs them, read out of the packages themselves."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

from pipeline import package as packages
from pipeline.bundle.manifest import Requirements
from pipeline.elf import DAMAGE

# The first pacman that knows what our packages hold (.MTREE), and the first that reads zstd (pacman's NEWS).
_PACMAN, _PACMAN_ZSTD = "4.1", "5.2"


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
    return tuple(int(number) for number in version.split(".") if number.isdigit())


def _glibc(content: bytes | None) -> Iterator[str]:
    """The versions of glibc's symbols that an ELF file needs (its .gnu.version_r section)."""
    if content is None or not content.startswith(b"\x7fELF"):
        return
    try:
        for section in ELFFile(io.BytesIO(content)).iter_sections():
            if isinstance(section, GNUVerNeedSection):
                for _, versions in section.iter_versions():
                    names = (version.name for version in versions)
                    yield from (n.removeprefix("GLIBC_") for n in names if n.startswith("GLIBC_2."))
    except DAMAGE:
        return  # `check` names files that are no proper ELF
