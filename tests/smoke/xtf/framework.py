"""A folder as a built Xen Test Framework leaves it, with tests that are made byte by byte."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

CONSOLE = 0x2000
"""Where the console's page is after that of start_info: libxc lays out start_info, store, console."""
_BASE = 0x100000

HANG, CRASH = b"\xeb\xfe", b"\x0f\x0b"
"""Ends of a kernel other than switching itself off: a loop, and an invalid instruction."""


def pv_kernel(said: str, end: bytes = b"") -> bytes:
    """Return a 64-bit PV kernel that says something on its console, and switches itself off.

    Layouts by Xen's public headers: xen.h (start_info), io/console.h, event_channel.h, sched.h.
    """
    text = said.encode()
    out, produced = CONSOLE + 1024, CONSOLE + 1024 + 2048 + 12
    tail = struct.pack("<II", 0, 0) + text

    def code(to_port: int, to_reason: int, to_text: int) -> list[bytes]:
        return [
            b"\x48\x89\xf3",  # mov rbx, rsi: start_info
            b"\x48\x8d\xbb" + struct.pack("<I", out),  # lea rdi, [rbx + out]
            b"\x48\x8d\x35" + struct.pack("<i", to_text),  # lea rsi, [text]
            b"\xb9" + struct.pack("<I", len(text)),  # mov ecx, length
            b"\xfc\xf3\xa4",  # cld; rep movsb
            b"\xc7\x83" + struct.pack("<II", produced, len(text)),  # mov dword [rbx + out_prod], length
            b"\x8b\x43\x50",  # mov eax, [rbx + console.domU.evtchn]
            b"\x48\x8d\x35" + struct.pack("<i", to_port) + b"\x89\x06",  # lea rsi, [port]; mov [rsi], eax
            b"\xbf\x04\0\0\0\xb8\x20\0\0\0\x0f\x05",  # event_channel_op(EVTCHNOP_send, port)
            end,
            b"\x48\x8d\x35" + struct.pack("<i", to_reason),  # lea rsi, [reason]
            b"\xbf\x02\0\0\0\xb8\x1d\0\0\0\x0f\x05",  # sched_op(SCHEDOP_shutdown, SHUTDOWN_poweroff)
            HANG,
        ]

    parts = code(0, 0, 0)
    ends = [sum(map(len, parts[: n + 1])) for n in range(len(parts))]
    # Distances are from the end of the lea, which is two bytes before the end of the eighth part.
    whole = b"".join(code(ends[-1] - ends[7] + 2, ends[-1] + 4 - ends[10], ends[-1] + 8 - ends[2]))
    return _elf(whole + tail)


def _elf(content: bytes) -> bytes:
    notes = _note(5, b"xen-3.0\0") + _note(8, b"generic\0") + _note(6, b"XTF\0")
    offset = 64 + 2 * 56
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, _BASE, 64, 0, 0, 64, 56, 2, 64, 0, 0
    )
    start = offset + len(notes)
    load = struct.pack("<IIQQQQQQ", 1, 7, start, _BASE, _BASE, len(content), len(content), 4096)
    note = struct.pack("<IIQQQQQQ", 4, 4, offset, 0, 0, len(notes), len(notes), 4)
    return header + load + note + notes + content


def _note(kind: int, value: bytes) -> bytes:
    return struct.pack("<III4s", 4, len(value), kind, b"Xen\0") + value.ljust(
        -len(value) % 4 + len(value), b"\0"
    )


def write_test(
    folder: Path,
    name: str,
    kernel: bytes = b"",
    *,
    category: str = "functional",
    environments: Sequence[str] = ("pv64",),
    variations: Sequence[str] = (),
    built: str = "/home/somebody/xtf",
) -> None:
    """Write a test as XTF's make does; ``built`` is where its configurations say that XTF is."""
    test = folder / "tests" / name
    test.mkdir(parents=True)
    info = {"name": name, "category": category, "environments": environments, "variations": variations}
    (test / "info.json").write_text(json.dumps(info))
    for environment in environments:
        file = f"test-{environment}-{name}"
        (test / file).write_bytes(kernel)
        for variation in variations or [""]:
            instance = file + (f"~{variation}" if variation else "")
            kind, key = ("pv", "kernel") if environment.startswith("pv") else ("hvm", "firmware_override")
            (test / f"{instance}.cfg").write_text(
                f'name="{instance}"\n\nvcpus=1 \n\ntype="{kind}"\n\nmemory=16\n'
                f'{key}="{built}/tests/{name}/{file}"\n' + 'cmdline="x"\n' * bool(variation)
            )
