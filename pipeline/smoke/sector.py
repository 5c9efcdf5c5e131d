"""The boot sector of a small HVM guest: it enters 32-bit mode, writes a line to the serial port, and goes.

SeaBIOS loads it at 0x7c00, as every BIOS does. The serial port is the 16550 at 0x3f8; switching off is
writing SLP_EN to PM1a_CNT, which Xen's qemu has at 0xb004 (ACPI specification, 4.8.3.2). Each instruction
stands beside its bytes; a test has an assembler make them again.
"""

from __future__ import annotations

import struct

MARKER = "SMOKE-HVM-UP bits=32"
SIZE = 1 << 20
"""Bytes of the disk that the sector is the first of."""
_MESSAGE, _GDTR, _END = 0x100, 0x180, 0x1FE

CODE: tuple[tuple[str, str], ...] = (
    ("", ".code16"),
    ("fa", "cli"),
    ("31c0", "xor %ax,%ax"),
    ("8ed8", "mov %ax,%ds"),
    ("8ed0", "mov %ax,%ss"),
    ("bc007c", "mov $0x7c00,%sp"),
    ("660f0116807d", "lgdtl 0x7d80"),
    ("0f20c0", "mov %cr0,%eax"),
    ("0c01", "or $0x1,%al"),
    ("0f22c0", "mov %eax,%cr0"),
    ("ea207c0800", "ljmp $0x8,$0x7c20"),
    ("000000", ".org 0x20"),
    ("", ".code32"),
    ("66b81000", "mov $0x10,%ax"),
    ("8ed8", "mov %ax,%ds"),
    ("be007d0000", "mov $0x7d00,%esi"),
    ("", "next:"),
    ("ac", "lods %ds:(%esi),%al"),
    ("84c0", "test %al,%al"),
    ("7414", "je told"),
    ("88c4", "mov %al,%ah"),
    ("", "wait:"),
    ("66bafd03", "mov $0x3fd,%dx"),
    ("ec", "in (%dx),%al"),
    ("a820", "test $0x20,%al"),
    ("74f7", "je wait"),
    ("66baf803", "mov $0x3f8,%dx"),
    ("88e0", "mov %ah,%al"),
    ("ee", "out %al,(%dx)"),
    ("ebe7", "jmp next"),
    ("", "told:"),
    ("66ba04b0", "mov $0xb004,%dx"),
    ("66b80020", "mov $0x2000,%ax"),
    ("66ef", "out %ax,(%dx)"),
    ("", "stop:"),
    ("f4", "hlt"),
    ("ebfd", "jmp stop"),
)


def boot_disk() -> bytes:
    """Return a disk with the sector."""
    code = bytes.fromhex("".join(made for made, _ in CODE))
    # The table of segments: none, all memory as code, all memory as data.
    table = struct.pack("<HIHQQQ", 23, 0x7C00 + _GDTR + 8, 0, 0, 0x00CF9A000000FFFF, 0x00CF92000000FFFF)
    message = f"\r\n{MARKER}\r\n\0".encode()
    sector = code.ljust(_MESSAGE, b"\0") + message.ljust(_GDTR - _MESSAGE, b"\0") + table
    return (sector.ljust(_END, b"\0") + b"\x55\xaa").ljust(SIZE, b"\0")
