"""Take from a stock kernel package what a test host needs: the kernel itself and a few modules.

The kernel is handed to Xen unpacked, because unpacking it under emulation takes Xen 8 to 14 seconds.
Formats: bzImage by Linux's Documentation/arch/x86/boot.rst, modules by modinfo(8).
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import libarchive
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from pipeline.elf import DAMAGE
from pipeline.smoke import deb
from pipeline.smoke.errors import KernelImageError
from pipeline.smoke.packing import Packing

MAX_KERNEL = 256 << 20
"""Bytes that an unpacked kernel may have; a damaged image must not fill the memory."""
MAX_MODULE = 64 << 20


@dataclass(frozen=True)
class Kernel:
    """A kernel ready to boot: its release, its ELF image, and modules in an order to load them.

    ``image`` is the bzImage of its package, and ``packing`` how that packs the kernel.
    """

    release: str
    vmlinux: bytes
    modules: Mapping[str, bytes]
    packing: Packing = Packing.UNKNOWN
    image: bytes = b""


def unpack_bzimage(image: bytes) -> bytes:
    """Return the ELF image that a bzImage carries compressed.

    Any compression that libarchive reads will do (gzip, xz, zstd, lz4, bzip2, lzma, lzop). Raises
    KernelImageError for anything that is not a whole bzImage of boot protocol 2.08 or later.
    """
    payload = _payload(image)
    # All but gzip, whose own last word it is, get the size appended by the kernel's makefiles.
    (size,) = struct.unpack("<I", payload[-4:])
    if not 0 < size <= MAX_KERNEL:
        raise KernelImageError(f"The kernel image claims an unpacked size of {size} bytes.")
    elf = _decompress(payload if Packing.of(payload) is Packing.GZIP else payload[:-4], size)
    if len(elf) != size:
        raise KernelImageError(f"The kernel unpacks to {len(elf)} bytes and not to {size}.")
    return elf


def packing_of(image: bytes) -> Packing:
    """Tell how a bzImage is packed; raises KernelImageError for what is none."""
    return Packing.of(_payload(image))


def _payload(image: bytes) -> bytes:
    if len(image) < 0x250 or image[0x202:0x206] != b"HdrS" or image[0x1FE:0x200] != b"\x55\xaa":
        raise KernelImageError("The kernel image has no boot header: it is not a bzImage.")
    (version,) = struct.unpack_from("<H", image, 0x206)
    if version < 0x208:
        raise KernelImageError(f"The kernel image speaks boot protocol {version:#x}, older than 2.08.")
    # Zero means four, for compatibility with loaders older than the field.
    setup = (image[0x1F1] or 4) + 1
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = setup * 512 + offset
    payload = image[start : start + length]
    if length < 8 or len(payload) != length:
        raise KernelImageError("The kernel image is cut short: its payload lies beyond its end.")
    return payload


def _decompress(payload: bytes, size: int) -> bytes:
    out = bytearray()
    try:
        with libarchive.memory_reader(payload, format_name="raw", filter_name="all") as archive:
            for entry in archive:
                for block in entry.get_blocks():
                    out += block
                    if len(out) > size:
                        raise KernelImageError("The kernel unpacks to more than it claims.")
    except libarchive.ArchiveError as e:
        raise KernelImageError(f"The kernel's payload is damaged: {e}.") from e
    return bytes(out)


def trim_elf(elf: bytes) -> bytes:
    """Cut off what no loader reads: sections, relocations, and zeros that end the last segment.

    A third of a stock kernel goes that way (its .bss is stored, because a section follows it); the
    emulated machine would copy it about. Loaders zero what a segment has in memory, but not in the
    file. What is left of the section table is the section of their names: libxc refused a kernel without
    it until Xen 4.6. Raises KernelImageError for what is not a 64-bit little-endian ELF file.
    """
    if len(elf) < 64 or elf[:6] != b"\x7fELF\x02\x01":
        raise KernelImageError("The kernel's payload is not a 64-bit ELF file.")
    (phoff,) = struct.unpack_from("<Q", elf, 32)
    phentsize, phnum = struct.unpack_from("<HH", elf, 54)
    table = phoff + phentsize * phnum
    if phentsize < 56 or not phnum or table > len(elf):
        raise KernelImageError("The kernel's program headers lie beyond its end.")
    segments = []
    for header in range(phoff, table, phentsize):
        offset, _, _, size = struct.unpack_from("<QQQQ", elf, header + 8)
        segments.append((offset + size, offset, header))
    end, offset, header = max(segments)
    if end > len(elf):
        raise KernelImageError("The kernel is cut short: a segment lies beyond its end.")
    size = len(elf[offset:end].rstrip(b"\0"))
    others = [other for other, _, its_header in segments if its_header != header]
    out = bytearray(elf[: max(table, offset + size, *others, 0)])
    struct.pack_into("<Q", out, header + 32, size)  # p_filesz
    names = b"\0.shstrtab\0"
    start = len(out)
    out += names + bytes(-(start + len(names)) % 8)
    struct.pack_into("<Q", out, 40, len(out))  # e_shoff
    struct.pack_into("<HHH", out, 58, 64, 2, 1)  # e_shentsize, e_shnum, e_shstrndx
    out += bytes(64) + struct.pack("<IIQQQQIIQQ", 1, 3, 0, 0, start, len(names), 0, 0, 1, 0)
    return bytes(out)


def unpack_module(name: str, data: bytes) -> bytes:
    """Return a module as busybox's insmod takes it, and every kernel: not compressed."""
    return data if name.endswith(".ko") else _decompress(data, MAX_MODULE)


def module_dependencies(module: bytes) -> list[str]:
    """Return the names of the modules that a module needs, from its ``.modinfo`` section."""
    try:
        section = ELFFile(io.BytesIO(module)).get_section_by_name(".modinfo")
        if section is not None and section.data_size > len(module):
            raise ELFError("its section .modinfo is larger than itself")
        data = section.data() if section is not None else b""
    except DAMAGE as e:
        raise KernelImageError(f"A kernel module is damaged: {e}.") from e
    for field in data.split(b"\0"):
        if field.startswith(b"depends="):
            return [_canonical(name) for name in field[8:].decode(errors="replace").split(",") if name]
    return []


def read_kernel_package(package: Path, modules: Sequence[str], likely: Sequence[str] = ()) -> Kernel:
    """Read a Debian kernel package (linux-image-*.deb).

    ``modules`` names those that are needed; what they depend on comes along. One that the kernel has
    built in is left out. ``likely`` names some that they may depend on, which saves time where they do.
    Raises KernelImageError.
    """
    needed = {_canonical(name) for name in modules}
    wanted = needed | {_canonical(name) for name in likely}
    known: dict[str, list[str]] = {}
    data = deb.member(package, "data.tar")
    found: dict[str, bytes] = {}
    while True:
        image, release, builtin, files = _read_files(data, wanted | set(known))
        found |= files
        known = {name: module_dependencies(content) for name, content in found.items()}
        missing = {need for needs in known.values() for need in needs} - set(known) - builtin
        if not missing:
            break
        # Rarely more than one round: the callers name nearly all there is.
        if not missing - wanted and files:
            raise KernelImageError(f"{package.name} lacks the module {sorted(missing)[0]}.")
        wanted |= missing
    absent = needed - set(found) - builtin
    if absent:
        raise KernelImageError(f"{package.name} lacks the module {sorted(absent)[0]}.")
    order = _load_order(known)
    elf = trim_elf(unpack_bzimage(image))
    return Kernel(release, elf, {name: found[name] for name in order}, packing_of(image), image)


# As Debian packs modules since 13, and others do (CONFIG_MODULE_COMPRESS_XZ, _ZSTD and _GZIP).
_MODULE = re.compile(r"\.ko(\.xz|\.zst|\.gz)?$")


def _is_module(name: str) -> bool:
    return _MODULE.search(name) is not None


def _canonical(name: str) -> str:
    return _MODULE.sub("", name).replace("-", "_")


def _load_order(needs: Mapping[str, Iterable[str]]) -> list[str]:
    order: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise KernelImageError(f"The kernel module {name} depends on itself.")
        if name in order or name not in needs:
            return
        for need in sorted(needs[name]):
            visit(need, (*above, name))
        order.append(name)

    for name in sorted(needs):
        visit(name, ())
    return order


def _read_files(data: bytes, wanted: set[str]) -> tuple[bytes, str, set[str], dict[str, bytes]]:
    image, release = b"", ""
    builtin: set[str] = set()
    files: dict[str, bytes] = {}
    with deb.tar(data) as archive:
        for entry in archive:
            path = PurePosixPath(entry.pathname)
            if not entry.isfile:
                continue
            if path.name.startswith("vmlinuz-"):
                image, release = deb.content(entry, MAX_KERNEL), path.name.removeprefix("vmlinuz-")
            elif path.name == "modules.builtin":
                names = deb.content(entry, MAX_MODULE).decode(errors="replace").split()
                builtin = {_canonical(PurePosixPath(name).name) for name in names}
            elif _is_module(path.name) and _canonical(path.name) in wanted:
                files[_canonical(path.name)] = unpack_module(path.name, deb.content(entry, MAX_MODULE))
    if not image:
        raise KernelImageError("The kernel package holds no vmlinuz.")
    return image, release, builtin, files
