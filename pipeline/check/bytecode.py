"""Whether Python's byte code belongs to the sources beside it.

Format of .pyc: PEP 552, "Specification", and for Python 2.7 what it says of the one before PEP 3147.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pipeline.check.findings import Finding, warning
from pipeline.package import Member, Package

_HASHED = 0b01
_PYTHON_2 = b"\x03\xf3\r\n"
"""The magic number of 2.7, behind which the time alone follows."""


def check(package: Package) -> Iterator[Finding]:
    """Stale byte code is never used: Python compiles the source again at every start."""
    for member in package.files:
        if (
            member.path.endswith(".pyc")
            and member.is_file
            and not _fits(member, _source(package, member.path))
        ):
            yield warning("byte-code", package.name, member.path, "is not that of the source in the package")


def _source(package: Package, path: str) -> Member | None:
    folder, _, name = path.rpartition("/")
    # PEP 3147: __pycache__/NAME.cpython-311.opt-1.pyc is that of NAME.py in the folder above.
    if folder.endswith("__pycache__"):
        return package.members.get(f"{folder.removesuffix('__pycache__')}{name.partition('.')[0]}.py")
    return package.members.get(path.removesuffix("c"))


def _fits(code: Member, source: Member | None) -> bool:
    head = (code.content or b"")[:16]
    if source is None:
        return not code.path.rpartition("/")[0].endswith("__pycache__")
    if len(head) < 16:
        return False
    if head.startswith(_PYTHON_2):
        return bool(struct.unpack_from("<I", head, 4)[0] == source.mtime & 0xFFFFFFFF)
    flags, mtime, size = struct.unpack("<III", head[4:])
    return bool(flags & _HASHED) or (mtime, size) == (source.mtime & 0xFFFFFFFF, source.size & 0xFFFFFFFF)
