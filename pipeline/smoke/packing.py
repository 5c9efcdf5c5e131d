"""How a stock kernel is packed, and which Xen can unpack that by itself when it starts it as dom0."""

from __future__ import annotations

from enum import StrEnum

from pipeline.smoke.series import series_of


class Packing(StrEnum):
    """What a bzImage's payload is packed by; told by its first bytes, as Linux and Xen tell it."""

    GZIP = "gzip"
    BZIP2 = "bzip2"
    LZMA = "lzma"
    XZ = "xz"
    LZO = "lzo"
    LZ4 = "lz4"
    ZSTD = "zstd"
    UNKNOWN = "an unknown format"

    @classmethod
    def of(cls, payload: bytes) -> Packing:
        """Tell it by a payload's first bytes."""
        return next((packing for magic, packing in _MAGIC.items() if payload.startswith(magic)), cls.UNKNOWN)

    def is_known_to(self, xen_version: str) -> bool:
        """Whether a Xen of some version, such as ``4.2.5``, unpacks it; older formats than lz4 all do."""
        if self is Packing.UNKNOWN:
            return False
        found = series_of(xen_version)
        return found is None or found >= _SINCE.get(self, (4, 1))


_MAGIC = {
    b"\x1f\x8b": Packing.GZIP,
    b"BZh": Packing.BZIP2,
    b"\x5d\x00\x00": Packing.LZMA,
    b"\xfd7zXZ\x00": Packing.XZ,
    b"\x89LZO": Packing.LZO,
    b"\x02\x21\x4c\x18": Packing.LZ4,
    b"\x28\xb5\x2f\xfd": Packing.ZSTD,
}
# xen/common/unlz4.c and unzstd.c of Xen's history.
_SINCE = {Packing.LZ4: (4, 4), Packing.ZSTD: (4, 15)}


def advice(release: str, packing: Packing, xen_version: str) -> str | None:
    """What to tell where Xen could not unpack a kernel that is booted in its extracted form."""
    if packing.is_known_to(xen_version):
        return None
    return (
        f"kernel {release} is packed by {packing}, which Xen {xen_version} cannot unpack: "
        "the extracted kernel is booted"
    )
