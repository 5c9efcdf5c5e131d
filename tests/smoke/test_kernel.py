"""Taking the kernel out of its package: a damaged one is named, and never a traceback."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from pipeline.smoke.errors import DebError, KernelImageError
from pipeline.smoke.kernel import (
    MAX_KERNEL,
    Kernel,
    module_dependencies,
    read_kernel_package,
    trim_elf,
    unpack_bzimage,
)


def elf(content: bytes = b"code" * 64, zeros: int = 512, behind: bytes = b"relocations" * 40) -> bytes:
    """A 64-bit ELF file with one segment, which ends in zeros, and something behind it."""
    size = len(content) + zeros
    ident = b"\x7fELF\x02\x01\x01"
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, 62, 1, 0, 64, 120 + size, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 120, 0, 0, size, size, 0)
    return header + segment + content + bytes(zeros) + behind


def bzimage(payload: bytes, size: bytes) -> bytes:
    """A boot image around a compressed payload, as the kernel's makefiles make it."""
    head = bytearray(5 * 512)
    head[0x1F1] = 4
    head[0x1FE:0x200] = b"\x55\xaa"
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, 0x20F)
    struct.pack_into("<II", head, 0x248, 32, len(payload) + len(size))
    return bytes(head) + bytes(32) + payload + size + b"trailer"


def by_xz(data: bytes) -> bytes:
    return bzimage(lzma.compress(data, check=lzma.CHECK_CRC32), struct.pack("<I", len(data)))


def by_gzip(data: bytes) -> bytes:
    return bzimage(gzip.compress(data), b"")


@pytest.mark.parametrize("pack", [by_xz, by_gzip])
def test_the_kernel_inside_comes_out_as_it_went_in(pack: Callable[[bytes], bytes]) -> None:
    """If this fails, stock kernels cannot be booted at all."""
    assert unpack_bzimage(pack(elf())) == elf()


@given(st.data())
def test_a_damaged_image_is_named(data: st.DataObject) -> None:
    """If this fails, a damaged download ends in a traceback, or boots something broken."""
    image = bytearray(by_xz(elf()))
    if data.draw(st.booleans()):
        del image[data.draw(st.integers(0, len(image) - 8)) :]
    for _ in range(data.draw(st.integers(1, 4))):
        if image:
            image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    try:
        out = unpack_bzimage(bytes(image))
    except KernelImageError:
        return
    assert out == elf()


def test_a_size_beyond_all_reason_is_refused_before_unpacking() -> None:
    """If this fails, a small hostile file fills the memory of the host."""
    image = bzimage(lzma.compress(bytes(1 << 20)), struct.pack("<I", MAX_KERNEL + 1))
    with pytest.raises(KernelImageError, match="claims an unpacked size"):
        unpack_bzimage(image)
    with pytest.raises(KernelImageError, match="more than it claims"):
        unpack_bzimage(bzimage(lzma.compress(bytes(1 << 20)), struct.pack("<I", 4096)))


def test_trimming_drops_only_what_no_loader_reads() -> None:
    """If this fails, the trimmed kernel lacks code, or boots seconds slower."""
    trimmed = trim_elf(elf())
    assert trimmed[: 120 + 256].endswith(b"code")
    # The names of the sections, of which there are none but this: old builders of domains ask for it.
    assert trimmed[120 + 256 :].startswith(b"\0.shstrtab\0")
    with io.BytesIO(trimmed) as file:
        assert [section.name for section in ELFFile(file).iter_sections()] == ["", ".shstrtab"]
    assert len(trimmed) == 120 + 256 + 16 + 2 * 64
    (filesz, memsz) = struct.unpack_from("<QQ", trimmed, 64 + 32)
    assert (filesz, memsz) == (256, 256 + 512)
    assert trim_elf(trimmed) == trimmed


@given(st.binary(max_size=300), st.integers(0, 200), st.binary(max_size=8))
def test_trimming_refuses_damage_by_name(junk: bytes, at: int, patch: bytes) -> None:
    """If this fails, a damaged kernel ends in a traceback."""
    broken = bytearray(elf())
    broken[at : at + len(patch)] = patch
    for data in (junk, bytes(broken), bytes(broken[: at + 64])):
        with contextlib.suppress(KernelImageError):
            trim_elf(data)


def test_a_module_that_is_none_is_named() -> None:
    """If this fails, a damaged module ends in a traceback."""
    with pytest.raises(KernelImageError):
        module_dependencies(b"\x7fELF nothing of the kind")


def test_a_file_that_is_no_debian_package_is_named(tmp_path: Path) -> None:
    """If this fails, a wrong file given as the kernel ends in a traceback."""
    file = tmp_path / "kernel.deb"
    for content in (b"", b"not an archive", b"!<arch>\n", b"!<arch>\ndata.tar.xz  "):
        file.write_bytes(content)
        with pytest.raises(DebError):
            read_kernel_package(file, [])


def package(path: Path, modules: dict[str, bytes]) -> Path:
    """A kernel package, as far as it is read: an ar archive (ar(5)) with a tar in it."""
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            for name, data in {"./boot/vmlinuz-6.12.1-test": by_xz(elf()), **modules}.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        data = file.getvalue()
    header = f"{'data.tar':<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n"
    path.write_bytes(b"!<arch>\n" + header.encode() + data + b"\n" * (len(data) % 2))
    return path


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".xz", lzma.compress), (".gz", gzip.compress)])
def test_modules_are_handed_over_unpacked(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    """Debian 13 packs its modules; dom0 of the test host could load none of them."""
    module = Path("/bin/true").read_bytes()
    path = "./usr/lib/modules/6.12.1-test/kernel/drivers/xen/xen-evtchn.ko"
    deb = package(tmp_path / "kernel.deb", {path + suffix: pack(module)})
    assert dict(read_kernel_package(deb, ["xen-evtchn"]).modules) == {"xen_evtchn": module}


def test_a_damaged_packed_module_is_named(tmp_path: Path) -> None:
    """If this fails, a damaged kernel package ends in a traceback."""
    deb = package(tmp_path / "kernel.deb", {"./lib/a.ko.xz": lzma.compress(b"x" * 999)[:40]})
    with pytest.raises(KernelImageError, match="damaged"):
        read_kernel_package(deb, ["a"])


@pytest.mark.integration
def test_a_module_that_the_kernel_lacks_is_named(kernel_deb: Path) -> None:
    """If this fails, a kernel without Xen's drivers shows only as a boot that hangs."""
    with pytest.raises(KernelImageError, match="no_such_module"):
        read_kernel_package(kernel_deb, ["no-such-module"])


@pytest.mark.integration
def test_modules_come_after_those_that_they_need(kernel: Kernel) -> None:
    """If this fails, dom0 comes up without its agent or its bridge."""
    order = list(kernel.modules)
    for name, data in kernel.modules.items():
        for need in module_dependencies(data):
            assert need not in order or order.index(need) < order.index(name)
    assert {"virtio_console", "xenfs", "bridge", "stp"} <= set(order)
