"""Which Xen can unpack which kernel: users of old ones must learn why theirs panics at once."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable

import libarchive
import pytest

from pipeline.smoke.kernel import packing_of, unpack_bzimage
from pipeline.smoke.packing import Packing, advice
from tests.smoke.test_kernel import bzimage, elf


def by_zstd(data: bytes) -> bytes:
    out = bytearray()

    def write(block: bytes) -> int:
        out.extend(block)
        return len(block)

    with libarchive.custom_writer(write, "raw", "zstd") as archive:
        archive.add_file_from_memory("kernel", len(data), data)
    return bytes(out)


PACKERS: dict[Packing, Callable[[bytes], bytes]] = {
    Packing.GZIP: gzip.compress,
    Packing.BZIP2: bz2.compress,
    Packing.LZMA: lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    Packing.XZ: lzma.compress,
    Packing.ZSTD: by_zstd,
}


@pytest.mark.parametrize("packing", PACKERS)
def test_a_packing_is_told_by_what_packers_write(packing: Packing) -> None:
    """If this fails, the line that explains a kernel's panic is missing, or wrong."""
    size = b"" if packing is Packing.GZIP else len(elf()).to_bytes(4, "little")
    image = bzimage(PACKERS[packing](elf()), size)
    assert packing_of(image) is packing
    assert unpack_bzimage(image) == elf()


@pytest.mark.parametrize(
    ("packing", "version", "known"),
    [
        (Packing.XZ, "4.2.5", True),
        (Packing.ZSTD, "4.2.5", False),
        (Packing.LZ4, "4.2.5", False),
        (Packing.LZ4, "4.4.0", True),
        (Packing.ZSTD, "4.14.6", False),
        (Packing.ZSTD, "4.17.5", True),
        (Packing.ZSTD, "4.22-unstable", True),
        (Packing.UNKNOWN, "4.22", False),
    ],
)
def test_what_xen_unpacks_by_itself(packing: Packing, version: str, known: bool) -> None:
    """If this fails, users are told nothing of a kernel that their Xen cannot start, or are told wrongly."""
    assert packing.is_known_to(version) is known
    line = advice("6.12.1", packing, version)
    assert (line is None) is known
    if line is not None:
        assert line == (
            f"kernel 6.12.1 is packed by {packing}, which Xen {version} cannot unpack: "
            "the extracted kernel is booted"
        )
