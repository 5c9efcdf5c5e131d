"""Find the shared libraries that programs need, without running the dynamic linker.

The programs are not this host's, so ldd is no way to ask. What is looked at is DT_NEEDED, DT_RUNPATH
and PT_INTERP of the ELF files, and ld.so(8)'s default folders.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable

from pipeline import elf
from pipeline.smoke.cpio import File, Tree
from pipeline.smoke.errors import PackageContentError
from pipeline.smoke.layers import Union

DEFAULT_FOLDERS = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib", "usr/lib", "lib64", "usr/lib64")
"""Where the dynamic linkers of Debian and Arch look without a cache, in order."""


_known: dict[bytes, elf.Elf | None] = {}
"""ELF files that were read, by their hash: programs share most of what they need."""


def _read(path: str, data: bytes) -> elf.Elf | None:
    """Read a 64-bit x86 ELF file; None for what is something else."""
    key = hashlib.sha256(data).digest()
    if key not in _known:
        try:
            found = elf.read(path, data)
        except elf.DamagedElfError as e:
            raise PackageContentError(e.message, file=path) from e
        _known[key] = found if found is not None and found.for_this_machine else None
    return _known[key]


def _folders(path: str, needs: elf.Elf) -> list[str]:
    """Where a file wants its libraries to be looked for first; ``path`` is where it is, for $ORIGIN."""
    origin = "/" + posixpath.dirname(path)
    places = (folder.replace("$ORIGIN", origin).replace("${ORIGIN}", origin) for folder in needs.run_path)
    return [place.strip("/") for place in places]


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
        needs = _read(real, entry.data)
        if needs is None or real in seen - {path}:
            continue
        if needs.interpreter is not None:
            todo.append((needs.interpreter.strip("/"), f"/{real}"))
        folders = _folders(real, needs)
        todo += [(_find(union, name, folders, real), f"/{real}") for name in needs.libraries]
    return found


def _find(union: Union, name: str, folders: list[str], needed_by: str) -> str:
    if "/" in name:
        return name.strip("/")
    for folder in (*folders, *DEFAULT_FOLDERS):
        path = f"{folder}/{name}"
        passed, real = union.walk(path)
        entry = passed.get(real) if real is not None else None
        # A 32-bit library of the same name is passed over, as the dynamic linker does.
        if real is not None and isinstance(entry, File) and _read(real, entry.data) is not None:
            return path
    raise PackageContentError(
        f"The library {name}, which /{needed_by} needs, is in neither package nor image.",
        hint="Either the package lacks a dependency, or the image lacks a library that Xen was built with.",
    )
