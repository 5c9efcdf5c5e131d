"""The CD that HVM guests boot Linux from: a BIOS starts it, and it starts a stock kernel."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from pipeline.smoke import guest_files, loader
from pipeline.smoke.cpio import File
from pipeline.smoke.errors import KernelImageError
from pipeline.smoke.kernel import Kernel


def test_the_bytes_are_those_of_the_instructions(tmp_path: Path) -> None:
    """If this fails, the loader does something else than what its source says."""
    source, made = tmp_path / "loader.s", tmp_path / "loader.o"
    source.write_text("".join(f"{text}\n" for _, text in loader.CODE))
    subprocess.run(["as", "--32", source, "-o", made], check=True)
    with made.open("rb") as file:
        text = ELFFile(file).get_section_by_name(".text")
        assert text is not None
        assert text.data() == bytes.fromhex("".join(made for made, _ in loader.CODE))


def test_a_bios_boots_linux_from_the_cd(kernel: Kernel, image_root: Path, tmp_path: Path) -> None:
    """If this fails, no HVM guest comes to a userspace, and every package looks broken."""
    busybox = (image_root / "usr/bin/busybox").resolve().read_bytes()
    (cd,) = guest_files.hvm_linux(kernel, busybox).values()
    assert isinstance(cd, File)
    (tmp_path / "linux.iso").write_bytes(cd.data)
    machine = ("qemu-system-x86_64", "-nodefaults", "-no-reboot", "-display", "none", "-m", "160")
    drive = ("-drive", f"file={tmp_path}/linux.iso,format=raw,media=cdrom,readonly=on", "-serial", "stdio")
    said = subprocess.run([*machine, *drive], capture_output=True, text=True, timeout=300, check=True).stdout
    assert "SMOKE-GUEST-UP pid=1" in said
    assert "machine=x86_64 root=ramdisk" in said


@pytest.mark.parametrize(
    ("image", "ramdisk", "message"),
    [
        (b"\x7fELF".ljust(1 << 20), b"", "no boot header"),
        (bytes(0x202) + b"HdrS" + bytes(15 << 20), bytes(1 << 20), "are too large"),
    ],
)
def test_what_cannot_be_booted_is_refused(image: bytes, ramdisk: bytes, message: str) -> None:
    """If this fails, a kernel that does not fit hangs in the guest, and the package is blamed."""
    with pytest.raises(KernelImageError, match=message):
        loader.linux_cd(image, ramdisk, "")


def test_a_command_line_that_is_too_long_is_refused() -> None:
    """If this fails, the kernel gets half of its options, or the loader is overwritten."""
    kernel = (bytes(0x202) + b"HdrS").ljust(1 << 20, b"\0")
    assert b"x" * 143 + b"\0" in loader.linux_cd(kernel, b"", "x" * 143)
    with pytest.raises(KernelImageError, match="no room for a command line of 144"):
        loader.linux_cd(kernel, b"", "x" * 144)
