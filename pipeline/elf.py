"""Reads ELF files: what they ask of the dynamic linker, and how they are protected.

Formats: System V ABI (chapters 4 and 5), its x86-64 supplement, and elf(5).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment

from pipeline.errors import FailureError

_DF_TEXTREL, _DF_BIND_NOW, _DF_1_NOW = 0x4, 0x8, 0x1
_EXECUTABLE = 0x1
"""PF_X."""


DAMAGE: tuple[type[Exception], ...] = (
    *(ELFError, ValueError, KeyError, AttributeError, TypeError, OverflowError, IndexError),
    *(struct.error, zlib.error, UnicodeError, MemoryError, RecursionError, AssertionError),
)
"""What pyelftools raises of a damaged file: it lets through whatever its parsers stumble over."""


class DamagedElfError(FailureError):
    """A file begins as an ELF file does, and is none."""


@dataclass(frozen=True)
class Elf:
    """What matters of an ELF file.

    ``bits`` is 32 or 64, ``machine`` such as ``EM_X86_64``; ``position_independent`` is true of ET_DYN.
    ``libraries`` are DT_NEEDED, ``run_path`` DT_RUNPATH and DT_RPATH, parted at the colons. ``relro`` is
    whether PT_GNU_RELRO is there, ``bind_now`` whether all symbols are bound at the start;
    ``stack_protector`` whether any function calls out when it finds its stack overwritten.
    """

    bits: int
    machine: str
    position_independent: bool
    interpreter: str | None
    soname: str | None
    libraries: tuple[str, ...]
    run_path: tuple[str, ...]
    dynamic: bool
    relro: bool
    bind_now: bool
    executable_stack: bool
    text_relocations: bool
    stack_protector: bool
    symbols: bool

    @property
    def for_this_machine(self) -> bool:
        """Whether a 64-bit x86 system's dynamic linker would take it."""
        return self.bits == 64 and self.machine == "EM_X86_64"


def read(path: str, data: bytes) -> Elf | None:
    """Read a file's content; None where it is no ELF file. Raises DamagedElfError naming ``path``."""
    if data[:4] != b"\x7fELF":
        return None
    try:
        return _read(ELFFile(io.BytesIO(data)), b"\0__stack_chk_fail\0" in data)
    except DAMAGE as e:
        raise DamagedElfError(f"/{path} is a damaged ELF file: {e}.") from e


def _read(elf: ELFFile, stack_protector: bool) -> Elf:
    interpreter: str | None = None
    tags: list[Any] = []
    kinds: set[str] = set()
    executable_stack = False
    for segment in elf.iter_segments():
        kind = segment["p_type"]
        kinds.add(kind)
        if isinstance(segment, InterpSegment):
            interpreter = segment.get_interp_name()
        elif isinstance(segment, DynamicSegment):
            tags += _tags(segment)
        elif kind == "PT_GNU_STACK":
            executable_stack = bool(segment["p_flags"] & _EXECUTABLE)
    values = {tag.entry.d_tag: tag.entry.d_val for tag in tags}
    flags, flags_1 = values.get("DT_FLAGS", 0), values.get("DT_FLAGS_1", 0)
    return Elf(
        bits=elf.elfclass,
        machine=str(elf["e_machine"]),
        position_independent=elf["e_type"] == "ET_DYN",
        interpreter=interpreter,
        soname=next((tag.soname for tag in tags if tag.entry.d_tag == "DT_SONAME"), None),
        libraries=tuple(tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"),
        run_path=tuple(part for tag in tags for part in _run_path(tag)),
        dynamic="PT_DYNAMIC" in kinds,
        relro="PT_GNU_RELRO" in kinds,
        bind_now="DT_BIND_NOW" in values or bool(flags & _DF_BIND_NOW) or bool(flags_1 & _DF_1_NOW),
        # Without the segment, Linux makes the stack executable.
        executable_stack=executable_stack or "PT_GNU_STACK" not in kinds,
        text_relocations="DT_TEXTREL" in values or bool(flags & _DF_TEXTREL),
        stack_protector=stack_protector,
        symbols=elf.get_section_by_name(".symtab") is not None,
    )


def _tags(segment: DynamicSegment) -> Iterable[Any]:
    """The entries of a dynamic segment; pyelftools gives each kind attributes that no type can tell."""
    tags: Iterable[Any] = segment.iter_tags()
    return tags


def _run_path(tag: Any) -> list[str]:
    match tag.entry.d_tag:
        case "DT_RUNPATH":
            value: str = tag.runpath
        case "DT_RPATH":
            value = tag.rpath
        case _:
            return []
    return [part for part in value.split(":") if part]
