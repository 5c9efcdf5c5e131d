"""PV guests in one page, 32-bit and 64-bit: they write a line to their console, and go or stay.

Linux no longer runs as a 32-bit PV guest since 5.9, but Xen can still be built to start such guests; and
ten of these need less than one Linux. Formats: the notes by xen/include/public/elfnote.h, what the guest
finds by start_info in xen/include/public/xen.h, the ring by xen/include/public/io/console.h. Each
instruction stands beside its bytes; a test has an assembler make them again.
"""

from __future__ import annotations

import struct

BASE = 0x00100000
_MESSAGE, _NOTES = 0x100, 0x200
"""Where the line and the notes are, from BASE on."""
MARKER = "SMOKE-TINY-UP bits="

Code = tuple[tuple[str, str], ...]

# Where it starts, ESI (RSI) has the address of start_info, of which the fields here are the console's event
# channel at 0x38 (0x50) and the command line at 0x50 (0x80): one that begins with an s lets the guest stay.
# The builder maps the store's page after that of start_info, and the console's after that. Hypercalls are
# 0x20, event_channel_op (4 is send), and 0x1d, sched_op (0 is yield, 2 shutdown, 3 poll).
CODE32: Code = (
    ("", "start:"),
    ("89f5", "mov %esi,%ebp"),
    ("8d9d00200000", "lea 0x2000(%ebp),%ebx"),
    ("be00011000", "mov $0x100100,%esi"),
    ("8b8b0c0c0000", "mov 0xc0c(%ebx),%ecx"),
    ("", "put:"),
    ("ac", "lods %ds:(%esi),%al"),
    ("84c0", "test %al,%al"),
    ("7412", "je told"),
    ("89ca", "mov %ecx,%edx"),
    ("81e2ff070000", "and $0x7ff,%edx"),
    ("88841300040000", "mov %al,0x400(%ebx,%edx,1)"),
    ("41", "inc %ecx"),
    ("ebe9", "jmp put"),
    ("", "told:"),
    ("898b0c0c0000", "mov %ecx,0xc0c(%ebx)"),
    ("ff7538", "push 0x38(%ebp)"),
    ("b820000000", "mov $0x20,%eax"),
    ("89df", "mov %ebx,%edi"),
    ("bb04000000", "mov $0x4,%ebx"),
    ("89e1", "mov %esp,%ecx"),
    ("cd82", "int $0x82"),
    ("", "drain:"),
    ("8b87080c0000", "mov 0xc08(%edi),%eax"),
    ("3b870c0c0000", "cmp 0xc0c(%edi),%eax"),
    ("740d", "je drained"),
    ("b81d000000", "mov $0x1d,%eax"),
    ("31db", "xor %ebx,%ebx"),
    ("31c9", "xor %ecx,%ecx"),
    ("cd82", "int $0x82"),
    ("ebe5", "jmp drain"),
    ("", "drained:"),
    ("807d5073", "cmpb $0x73,0x50(%ebp)"),
    ("7410", "je stay"),
    ("6a00", "push $0x0"),
    ("b81d000000", "mov $0x1d,%eax"),
    ("bb02000000", "mov $0x2,%ebx"),
    ("89e1", "mov %esp,%ecx"),
    ("cd82", "int $0x82"),
    ("", "stay:"),
    ("6a00", "push $0x0"),
    ("6a00", "push $0x0"),
    ("6a00", "push $0x0"),
    ("6a00", "push $0x0"),
    ("", "again:"),
    ("b81d000000", "mov $0x1d,%eax"),
    ("bb03000000", "mov $0x3,%ebx"),
    ("89e1", "mov %esp,%ecx"),
    ("cd82", "int $0x82"),
    ("ebf0", "jmp again"),
)
CODE64: Code = (
    ("", "start:"),
    ("4889f5", "mov %rsi,%rbp"),
    ("488d9d00200000", "lea 0x2000(%rbp),%rbx"),
    ("be00011000", "mov $0x100100,%esi"),
    ("8b930c0c0000", "mov 0xc0c(%rbx),%edx"),
    ("", "put:"),
    ("ac", "lods %ds:(%rsi),%al"),
    ("84c0", "test %al,%al"),
    ("7413", "je told"),
    ("89d7", "mov %edx,%edi"),
    ("81e7ff070000", "and $0x7ff,%edi"),
    ("88843b00040000", "mov %al,0x400(%rbx,%rdi,1)"),
    ("ffc2", "inc %edx"),
    ("ebe8", "jmp put"),
    ("", "told:"),
    ("89930c0c0000", "mov %edx,0xc0c(%rbx)"),
    ("8b4550", "mov 0x50(%rbp),%eax"),
    ("50", "push %rax"),
    ("b820000000", "mov $0x20,%eax"),
    ("bf04000000", "mov $0x4,%edi"),
    ("4889e6", "mov %rsp,%rsi"),
    ("0f05", "syscall"),
    ("", "drain:"),
    ("8b83080c0000", "mov 0xc08(%rbx),%eax"),
    ("3b830c0c0000", "cmp 0xc0c(%rbx),%eax"),
    ("740d", "je drained"),
    ("b81d000000", "mov $0x1d,%eax"),
    ("31ff", "xor %edi,%edi"),
    ("31f6", "xor %esi,%esi"),
    ("0f05", "syscall"),
    ("ebe5", "jmp drain"),
    ("", "drained:"),
    ("80bd8000000073", "cmpb $0x73,0x80(%rbp)"),
    ("7411", "je stay"),
    ("6a00", "push $0x0"),
    ("b81d000000", "mov $0x1d,%eax"),
    ("bf02000000", "mov $0x2,%edi"),
    ("4889e6", "mov %rsp,%rsi"),
    ("0f05", "syscall"),
    ("", "stay:"),
    ("6a00", "push $0x0"),
    ("6a00", "push $0x0"),
    ("6a00", "push $0x0"),
    ("", "again:"),
    ("b81d000000", "mov $0x1d,%eax"),
    ("bf03000000", "mov $0x3,%edi"),
    ("4889e6", "mov %rsp,%rsi"),
    ("0f05", "syscall"),
    ("ebef", "jmp again"),
)


def tiny_guest(bits: int) -> bytes:
    """Return a guest's kernel, an ELF file."""
    code = bytes.fromhex("".join(made for made, _ in (CODE32 if bits == 32 else CODE64)))
    message = f"{MARKER}{bits}\r\n\0".encode()
    word = "<I" if bits == 32 else "<Q"
    notes = b"".join(
        _note(kind, value)
        for kind, value in (
            (1, struct.pack(word, BASE)),  # entry
            (3, struct.pack(word, 0)),  # virtual base
            (5, b"xen-3.0\0"),
            (6, b"smoke\0"),
            (8, b"generic\0"),
            (9, b"yes\0"),  # PAE
        )
    )
    page = code.ljust(_MESSAGE, b"\0") + message.ljust(_NOTES - _MESSAGE, b"\0") + notes
    return _elf32(page, len(notes)) if bits == 32 else _elf64(page, len(notes))


_START = 0x1000
# libxc refused a kernel without a section of section names until Xen 4.6.
_NAMES = b"\0.shstrtab\0".ljust(12, b"\0")


def _elf32(page: bytes, notes: int) -> bytes:
    end = _START + len(page)
    magic, sizes = b"\x7fELF\x01\x01\x01", (52, 32, 2, 40, 2, 1)
    header = struct.pack("<16sHHIIIIIHHHHHH", magic, 2, 3, 1, BASE, 52, end + len(_NAMES), 0, *sizes)
    load = struct.pack("<IIIIIIII", 1, _START, BASE, BASE, len(page), 0x1000, 7, 0x1000)
    where = BASE + _NOTES
    note = struct.pack("<IIIIIIII", 4, _START + _NOTES, where, where, notes, notes, 4, 4)
    sections = bytes(40) + struct.pack("<10I", 1, 3, 0, 0, end, len(_NAMES), 0, 0, 1, 0)
    return (header + load + note).ljust(_START, b"\0") + page + _NAMES + sections


def _elf64(page: bytes, notes: int) -> bytes:
    end = _START + len(page)
    magic, sizes = b"\x7fELF\x02\x01\x01", (64, 56, 2, 64, 2, 1)
    header = struct.pack("<16sHHIQQQIHHHHHH", magic, 2, 62, 1, BASE, 64, end + len(_NAMES), 0, *sizes)
    load = struct.pack("<IIQQQQQQ", 1, 7, _START, BASE, BASE, len(page), 0x1000, 0x1000)
    where = BASE + _NOTES
    note = struct.pack("<IIQQQQQQ", 4, 4, _START + _NOTES, where, where, notes, notes, 4)
    sections = bytes(64) + struct.pack("<IIQQQQIIQQ", 1, 3, 0, 0, end, len(_NAMES), 0, 0, 1, 0)
    return (header + load + note).ljust(_START, b"\0") + page + _NAMES + sections


def _note(kind: int, value: bytes) -> bytes:
    return struct.pack("<III4s", 4, len(value), kind, b"Xen\0") + value + bytes(-len(value) % 4)
