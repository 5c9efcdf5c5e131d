"""A multiboot image that boots and says nothing, made byte by byte."""

from __future__ import annotations

import struct


def silent_xen() -> bytes:
    """Return a 32-bit ELF file with a multiboot header whose code halts for ever."""
    load = 0x100000
    magic, flags = 0x1BADB002, 0
    header = struct.pack("<III", magic, flags, -(magic + flags) & 0xFFFFFFFF)
    code = header + b"\xfa\xf4\xeb\xfd"  # cli; hlt; jmp to the hlt
    elf = struct.pack(
        "<16sHHIIIIIHHHHHH", b"\x7fELF\x01\x01\x01", 2, 3, 1, load + 12, 52, 0, 0, 52, 32, 1, 40, 0, 0
    )
    segment = struct.pack("<IIIIIIII", 1, 84, load, load, len(code), len(code), 7, 4)
    return elf + segment + code
