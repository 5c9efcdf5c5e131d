"""The ROM of a network card that boots nothing.

QEMU has none for a card without a ROM file, and starts no guest that has such a card; those of others would
have a guest wait for an answer from the network. The layout is the PCI Local Bus Specification's, 3.0, 6.3.
"""

from __future__ import annotations

import struct

SIZE = 512
_PCIR = 0x1C


def silent_rom() -> bytes:
    """Return the ROM; QEMU writes the card's own numbers into it."""
    # The signature, the size in 512 bytes, and a far return, which is all that its beginning does.
    head = b"\x55\xaa\x01\xcb".ljust(0x18, b"\0") + struct.pack("<HH", _PCIR, 0)
    # Vendor and device, length and revision of this table, class (network), length of the image in 512 bytes,
    # revision, code for PCs, the last image.
    pcir = b"PCIR" + struct.pack("<HHHHB3sHHBBH", 0x8086, 0, 0, 0x18, 0, b"\0\0\x02", 1, 0, 0, 0x80, 0)
    rom = (head + pcir).ljust(SIZE - 1, b"\0")
    return rom + bytes([-sum(rom) % 256])
