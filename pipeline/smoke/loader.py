"""A CD that an HVM guest boots Linux from: its boot image loads a stock kernel, as LILO did.

What it does is the 16-bit boot protocol (Linux's Documentation/arch/x86/boot.rst): the setup part of a
bzImage goes to 0x90000, the rest to 0x100000, a ramdisk above it, and setup is entered at its second sector.
Sectors are read by BIOS function 13h/42h, 32 KiB at a time, and moved above the first megabyte by 15h/87h. It
is a CD, as those have sectors four times as large: each costs an emulated machine a round through Xen, dom0
and qemu. How a BIOS finds the boot image is the El Torito specification (1.0). Each instruction stands beside
its bytes; a test has an assembler make them again.
"""

from __future__ import annotations

import struct

from pipeline.smoke.errors import KernelImageError

_SECTOR, _CHUNK = 2048, 32 << 10
_BOOT_RECORD, _CATALOG, _IMAGE = 17, 18, 19
"""Sectors: where the specification wants the boot record, and the two that it leads to."""
_ORIGIN, _SIZE = 0x7C00, 512
_FIRST, _NEXT, _REGIONS, _SEGMENTS, _OPTIONS = 0x100, 0x110, 0x120, 0x140, 0x170
"""Where in the boot image are two requests for reading, the regions, the segments and the command line."""
_KERNEL, _TOP = 1 << 20, 16 << 20
"""Where the kernel goes, and where the ramdisk ends: BIOS moves below, the kernel unpacks itself above."""
_STACK = 256 << 10
"""Bytes behind the kernel that it uses before it moves itself: its .bss, with stack and heap."""

CODE: tuple[tuple[str, str], ...] = (
    ("", ".code16"),
    ("fc", "cld"),
    ("89d5", "mov %dx,%bp"),
    ("31c0", "xor %ax,%ax"),
    ("8ed8", "mov %ax,%ds"),
    ("8ec0", "mov %ax,%es"),
    ("8ed0", "mov %ax,%ss"),
    ("bc007c", "mov $0x7c00,%sp"),
    ("be007d", "mov $0x7d00,%si"),
    ("e85700", "call read"),
    ("bf207d", "mov $0x7d20,%di"),
    ("", "region:"),
    ("8b0d", "mov (%di),%cx"),
    ("e33a", "jcxz start"),
    ("668b4502", "mov 0x2(%di),%eax"),
    ("66a3187d", "mov %eax,0x7d18"),
    ("668b4506", "mov 0x6(%di),%eax"),
    ("66a35a7d", "mov %eax,0x7d5a"),
    ("", "chunk:"),
    ("51", "push %cx"),
    ("be107d", "mov $0x7d10,%si"),
    ("e83900", "call read"),
    ("be407d", "mov $0x7d40,%si"),
    ("b90040", "mov $0x4000,%cx"),
    ("b487", "mov $0x87,%ah"),
    ("cd15", "int $0x15"),
    ("7236", "jc stop"),
    ("668306187d10", "addl $0x10,0x7d18"),
    ("6681065a7d00800000", "addl $0x8000,0x7d5a"),
    ("59", "pop %cx"),
    ("e2db", "loop chunk"),
    ("83c70a", "add $0xa,%di"),
    ("ebc2", "jmp region"),
    ("", "start:"),
    ("fa", "cli"),
    ("b80090", "mov $0x9000,%ax"),
    ("8ed8", "mov %ax,%ds"),
    ("8ec0", "mov %ax,%es"),
    ("8ee0", "mov %ax,%fs"),
    ("8ee8", "mov %ax,%gs"),
    ("8ed0", "mov %ax,%ss"),
    ("bc00e0", "mov $0xe000,%sp"),
    ("ea00002090", "ljmp $0x9020,$0x0"),
    ("", "read:"),
    ("b442", "mov $0x42,%ah"),
    ("89ea", "mov %bp,%dx"),
    ("cd13", "int $0x13"),
    ("7201", "jc stop"),
    ("c3", "ret"),
    ("", "stop:"),
    ("f4", "hlt"),
    ("ebfd", "jmp stop"),
)


def linux_cd(image: bytes, ramdisk: bytes, options: str) -> bytes:
    """Return a CD that boots a bzImage with a ramdisk and a command line of 143 characters at the most.

    Raises KernelImageError for a longer one, for what is no bzImage, and for one that is too large to lie
    below 16 MiB with its ramdisk.
    """
    if len(options.encode()) >= _SIZE - _OPTIONS:
        raise KernelImageError(f"The boot image has no room for a command line of {len(options)} characters.")
    if len(image) < 0x250 or image[0x202:0x206] != b"HdrS":
        raise KernelImageError("The kernel image has no boot header: it is not a bzImage.")
    setup_size = ((image[0x1F1] or 4) + 1) * 512
    setup, kernel = bytearray(image[:setup_size]), _padded(image[setup_size:], _CHUNK)
    below = _padded(ramdisk, _CHUNK)
    at = _TOP - len(below)
    if _KERNEL + len(kernel) + _STACK > at:
        raise KernelImageError(
            f"A kernel of {len(image)} bytes and a ramdisk of {len(ramdisk)} are too large."
        )
    # type_of_loader: none of those with a number; loadflags: CAN_USE_HEAP, which ends at heap_end_ptr.
    setup[0x210], setup[0x211] = 0xFF, setup[0x211] | 0x80
    struct.pack_into("<II", setup, 0x218, at, len(ramdisk))
    struct.pack_into("<H", setup, 0x224, 0xDE00)
    struct.pack_into("<I", setup, 0x228, _ORIGIN + _OPTIONS)
    lead, start = _padded(bytes(setup), _SECTOR), _IMAGE + 1
    first = start + len(lead) // _SECTOR
    second = first + len(kernel) // _SECTOR
    regions = _region(kernel, first, _KERNEL) + _region(below, second, at)
    boot = _padded(_boot_image(start, len(lead) // _SECTOR, regions, options), _SECTOR)
    return bytes(_BOOT_RECORD * _SECTOR) + _boot_record() + _catalog() + boot + lead + kernel + below


def _boot_record() -> bytes:
    name = b"EL TORITO SPECIFICATION".ljust(64, b"\0")
    return _padded(b"\0CD001\1" + name + struct.pack("<I", _CATALOG), _SECTOR)


def _catalog() -> bytes:
    # The validation entry's words sum up to zero; then a boot image of 512 bytes, not emulated.
    validation = struct.pack("<BBH24sHH", 1, 0, 0, b"", 0x10000 - 0xAA55 - 1, 0xAA55)
    return _padded(validation + struct.pack("<BBHBBHI", 0x88, 0, 0, 0, 0, 1, _IMAGE), _SECTOR)


def _boot_image(start: int, sectors: int, regions: bytes, options: str) -> bytes:
    code = bytes.fromhex("".join(made for made, _ in CODE))
    # Source (the buffer at 0x10000) and target are the third and fourth of six segments.
    segments = bytes(16) + struct.pack("<HI", 0xFFFF, 0x93010000) + bytes(2) + b"\xff\xff"
    parts = (
        (0, code),
        (_FIRST, struct.pack("<HHHHQ", 16, sectors, 0, 0x9000, start)),
        (_NEXT, struct.pack("<HHHHQ", 16, _CHUNK // _SECTOR, 0, 0x1000, 0)),
        (_REGIONS, regions),
        (_SEGMENTS, segments),
        (_OPTIONS, options.encode() + b"\0"),
        (_SIZE, b""),
    )
    made = b""
    for place, data in parts:
        assert len(made) <= place, "the parts of the boot image overlap"
        made = made.ljust(place, b"\0") + data
    return made


def _region(data: bytes, sector: int, address: int) -> bytes:
    """What the code copies: how many chunks, from which sector, to where (with a segment's rights)."""
    return struct.pack("<HII", len(data) // _CHUNK, sector, address | 0x93000000)


def _padded(data: bytes, unit: int) -> bytes:
    return data + bytes(-len(data) % unit)
