"""Find the package's hypervisor, and unpack it for a multiboot loader."""

from __future__ import annotations

import zlib

from pipeline.smoke.cpio import File
from pipeline.smoke.errors import PackageContentError
from pipeline.smoke.layers import PackageLayer, Union

MAX_XEN = 64 << 20
"""Bytes that it may have unpacked."""


def find_xen(package: PackageLayer) -> bytes:
    """Return the package's hypervisor, unpacked: the 32-bit ELF file that multiboot loaders take.

    Raises PackageContentError.
    """
    for path in ("boot/xen.gz", "boot/xen"):
        passed, real = Union([package]).walk(path)
        entry = passed.get(real) if real is not None else None
        if isinstance(entry, File):
            return unpack_xen(entry.data, path)
    raise PackageContentError("The package has no hypervisor: there is no /boot/xen.gz in it.")


def unpack_xen(data: bytes, path: str) -> bytes:
    """Return the ELF file in a xen.gz; ``path`` is for messages. Raises PackageContentError."""
    if data.startswith(b"\x1f\x8b"):
        try:
            unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
            data = unpacker.decompress(data, MAX_XEN)
        except zlib.error as e:
            raise PackageContentError(f"/{path} is a damaged gzip file: {e}.") from e
        if not unpacker.eof:
            raise PackageContentError(f"/{path} is cut short, or larger than {MAX_XEN} bytes.")
    if not data.startswith(b"\x7fELF\x01"):
        raise PackageContentError(f"/{path} is not a 32-bit ELF file, so no multiboot loader can start it.")
    return data
