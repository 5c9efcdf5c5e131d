"""Reading ELF files, which come from packages of anybody."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import elf

BASH = Path("/bin/bash")


def test_what_this_hosts_shell_says_of_itself() -> None:
    """If this fails, every finding about programs is a guess."""
    found = elf.read("usr/bin/bash", BASH.read_bytes())
    assert found is not None
    assert found.for_this_machine
    assert found.position_independent
    assert found.relro
    assert "libc.so.6" in found.libraries
    assert found.interpreter == "/lib64/ld-linux-x86-64.so.2"
    assert not found.run_path
    assert not found.executable_stack
    assert not found.text_relocations
    assert not found.symbols


def test_what_is_no_elf_file_is_left_alone() -> None:
    """Scripts and data are most of a package."""
    assert elf.read("usr/bin/script", b"#!/bin/sh\n") is None
    assert elf.read("usr/share/empty", b"") is None


def test_a_stub_of_a_file_is_named() -> None:
    """If this fails, a truncated program ends in a traceback."""
    with pytest.raises(elf.DamagedElfError, match="usr/bin/stub"):
        elf.read("usr/bin/stub", b"\x7fELF")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 4096), st.binary(min_size=1, max_size=16))
def test_a_damaged_program_is_named(at: int, patch: bytes) -> None:
    """If this fails, a damaged program in a package ends in a traceback."""
    data = bytearray(BASH.read_bytes())
    data[at : at + len(patch)] = patch
    with contextlib.suppress(elf.DamagedElfError):
        elf.read("usr/bin/bash", bytes(data))
