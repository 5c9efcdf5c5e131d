"""The guests of one page: their bytes are what an assembler makes of the text beside them."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment

from pipeline.smoke import sector
from pipeline.smoke.tiny import BASE, CODE32, CODE64, MARKER, Code, tiny_guest


@pytest.mark.parametrize(("bits", "code"), [(32, CODE32), (64, CODE64)])
def test_the_bytes_are_those_of_the_instructions(bits: int, code: Code, tmp_path: Path) -> None:
    """If this fails, a guest does something else than what its source says."""
    source, made = tmp_path / "guest.s", tmp_path / "guest.o"
    source.write_text("".join(f"{text}\n" for _, text in code))
    subprocess.run(["as", f"--{bits}", source, "-o", made], check=True)
    with made.open("rb") as file:
        text = ELFFile(file).get_section_by_name(".text")
        assert text is not None
        assert text.data() == bytes.fromhex("".join(made for made, _ in code))


@pytest.mark.parametrize("bits", [32, 64])
def test_the_file_is_what_a_loader_expects(bits: int) -> None:
    """If this fails, no Xen starts the guest, and good packages look broken."""
    elf = ELFFile(io.BytesIO(tiny_guest(bits)))
    assert (elf.elfclass, elf.header.e_entry) == (bits, BASE)
    load, note = elf.iter_segments()
    assert (load.header.p_vaddr, note.header.p_type) == (BASE, "PT_NOTE")
    page = load.data()
    assert page[0x100:].startswith(f"{MARKER}{bits}\r\n\0".encode())
    assert load.header.p_memsz >= len(page)
    assert isinstance(note, NoteSegment)
    notes = {found["n_type"]: found["n_descdata"] for found in note.iter_notes()}
    assert len(notes) == 6
    assert elf.get_section(1).name == ".shstrtab"


def test_the_boot_sector_is_that_of_its_instructions(tmp_path: Path) -> None:
    """If this fails, the HVM guest does something else than what its source says."""
    source, made = tmp_path / "sector.s", tmp_path / "sector.o"
    source.write_text("".join(f"{text}\n" for _, text in sector.CODE))
    subprocess.run(["as", "--32", source, "-o", made], check=True)
    disk = sector.boot_disk()
    with made.open("rb") as file:
        text = ELFFile(file).get_section_by_name(".text")
        assert text is not None
        assert disk.startswith(text.data())
    assert (disk[510:512], len(disk)) == (b"\x55\xaa", sector.SIZE)
    assert sector.MARKER.encode() in disk[0x100:0x180]
