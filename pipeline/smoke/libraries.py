"""Find the shared libraries that programs need, without running the dynamic linker.

The programs are not this host's, so ldd is no way to ask. What is looked at is DT_NEEDED, DT_RUNPATH
and PT_INTERP of the ELF files (System V ABI, chapters 4 and 5), and ld.so(8)'s default folders.
"""

from __future__ import annotations

import io
import posixpath
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment

from pipeline.smoke.cpio import File, Tree
from pipeline.smoke.errors import PackageContentError
from pipeline.smoke.layers import Union

DEFAULT_FOLDERS = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib", "usr/lib", "lib64", "usr/lib64")
"""Where the dynamic linkers of Debian and Arch look without a cache, in order."""


@dataclass(frozen=True)
class Needs:
    """What an ELF file asks of the dynamic linker."""

    interpreter: str | None
    libraries: tuple[str, ...]
    folders: tuple[str, ...]


def read_needs(path: str, data: bytes) -> Needs | None:
    """Read what a file needs; None for what is not a 64-bit x86 ELF file.

    ``path`` is where the file will be, for $ORIGIN. Raises PackageContentError for a damaged file.
    """
    if data[:4] != b"\x7fELF":
        return None
    interpreter: str | None = None
    libraries: list[str] = []
    folders: list[str] = []
    try:
        elf = ELFFile(io.BytesIO(data))
        if elf.elfclass != 64 or elf["e_machine"] != "EM_X86_64":
            return None
        for segment in elf.iter_segments():
            if isinstance(segment, InterpSegment):
                interpreter = segment.get_interp_name()
            elif isinstance(segment, DynamicSegment):
                # pyelftools gives each kind of tag its own attributes, which no type can tell.
                tags: Iterable[Any] = segment.iter_tags()
                for tag in tags:
                    if tag.entry.d_tag == "DT_NEEDED":
                        libraries.append(tag.needed)
                    elif tag.entry.d_tag in ("DT_RUNPATH", "DT_RPATH"):
                        value = tag.runpath if tag.entry.d_tag == "DT_RUNPATH" else tag.rpath
                        folders += value.split(":")
    # pyelftools lets through whatever its parsers stumble over in a damaged file.
    except (ELFError, ValueError, KeyError, AttributeError, TypeError, OverflowError, struct.error) as e:
        raise PackageContentError(f"/{path} is a damaged ELF file: {e}.") from e
    origin = "/" + posixpath.dirname(path)
    places = (folder.replace("$ORIGIN", origin).replace("${ORIGIN}", origin) for folder in folders)
    return Needs(interpreter, tuple(libraries), tuple(place.strip("/") for place in places if place))


def closure(union: Union, paths: Iterable[str]) -> Tree:
    """Return files and all that their ELF headers ask for, directly or through libraries.

    Links on the way are returned too. Raises PackageContentError for a file or library that no layer
    has, naming who needs it.
    """
    found: Tree = {}
    todo = [(path, "the test host") for path in paths]
    seen: set[str] = set()
    while todo:
        path, needed_by = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        passed, real = union.walk(path)
        found |= passed
        entry = passed.get(real) if real is not None else None
        if real is None or not isinstance(entry, File):
            raise PackageContentError(f"/{path}, which {needed_by} needs, is in neither package nor image.")
        needs = read_needs(real, entry.data)
        if needs is None or real in seen - {path}:
            continue
        if needs.interpreter is not None:
            todo.append((needs.interpreter.strip("/"), f"/{real}"))
        todo += [(_find(union, name, needs.folders, real), f"/{real}") for name in needs.libraries]
    return found


def _find(union: Union, name: str, folders: tuple[str, ...], needed_by: str) -> str:
    if "/" in name:
        return name.strip("/")
    for folder in (*folders, *DEFAULT_FOLDERS):
        path = f"{folder}/{name}"
        passed, real = union.walk(path)
        entry = passed.get(real) if real is not None else None
        # A 32-bit library of the same name is passed over, as the dynamic linker does.
        if real is not None and isinstance(entry, File) and read_needs(real, entry.data) is not None:
            return path
    raise PackageContentError(
        f"The library {name}, which /{needed_by} needs, is in neither package nor image.",
        hint="Either the package lacks a dependency, or the image lacks a library that Xen was built with.",
    )
