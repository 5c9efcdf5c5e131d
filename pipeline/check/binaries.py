"""Whether programs and libraries are protected as they can be, and made for where they are installed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline import elf
from pipeline.check.findings import Finding, error, warning
from pipeline.elf import Elf
from pipeline.package import Member, Package

# Kernels and firmware: no dynamic linker loads them, and a page of 32 bits needs no library.
_LOADED_BY_OTHERS = ("boot/", "usr/lib/xen/boot/", "usr/lib/xen/efi/")
# Where Arch has what the dynamic linker loads.
_PROGRAMS = ("usr/bin/", "usr/lib/", "usr/lib32/", "opt/")
_EXTENSION = re.compile(r"\.cpython-(\d)(\d+)[^/]*\.so$")


@dataclass(frozen=True)
class Binary:
    """A file of a package, and its ELF headers."""

    member: Member
    elf: Elf


def read(package: Package) -> tuple[list[Binary], list[Finding]]:
    """Read the ELF files of a package; damaged ones become findings."""
    found: list[Binary] = []
    findings: list[Finding] = []
    for member in package.files:
        try:
            headers = elf.read(member.path, member.content or b"") if member.is_file else None
        except elf.DamagedElfError as e:
            findings.append(error("damaged-elf", package.name, member.path, e.message))
            continue
        if headers is not None:
            found.append(Binary(member, headers))
    return found, findings


def check(package: Package, binaries: list[Binary]) -> Iterator[Finding]:
    """Look at all ELF files of a package."""
    yield from _architecture(package, binaries)
    for binary in binaries:
        if binary.elf.dynamic:
            yield from _linking(package, binary)
            yield from _protection(package, binary)
    yield from _stack_protector(package, binaries)


def _architecture(package: Package, binaries: list[Binary]) -> Iterator[Finding]:
    for_any = "any" in package.pkginfo.get("arch", ())
    if not for_any and not binaries:
        yield warning("arch", package.name, ".PKGINFO", "holds nothing for one architecture: arch=(any)")
    for binary in binaries:
        path = binary.member.path
        if for_any:
            yield error("arch", package.name, path, f"is for {binary.elf.machine}, and the package for any")
        if binary.elf.bits == 32 and (binary.elf.interpreter or binary.elf.libraries):
            yield error("elf-class", package.name, path, "has 32 bits and needs libraries of multilib")
        elif binary.elf.bits == 32 and not path.startswith(_LOADED_BY_OTHERS):
            yield warning("elf-class", package.name, path, "has 32 bits")


def _linking(package: Package, binary: Binary) -> Iterator[Finding]:
    path, headers = binary.member.path, binary.elf
    if not path.startswith(_PROGRAMS):
        yield error(
            "elf-place", package.name, path, f"programs and libraries are in {', '.join(_PROGRAMS[:2])}"
        )
    if headers.run_path:
        yield error("rpath", package.name, path, f"looks for libraries in {':'.join(headers.run_path)}")
    folder = path.rpartition("/")[0]
    if folder == "usr/lib" and headers.soname and f"{folder}/{headers.soname}" not in package.members:
        yield error(
            "soname-link", package.name, path, f"is to be found as {headers.soname}, which is not there"
        )
    match = _EXTENSION.search(path)
    if match and not path.startswith(f"usr/lib/python{match[1]}.{match[2]}/"):
        where = f"/usr/lib/python{match[1]}.{match[2]}/site-packages"
        yield warning(
            "python-abi", package.name, path, f"is for Python {match[1]}.{match[2]} alone, in {where}"
        )
    if headers.symbols:
        yield warning("not-stripped", package.name, path, "has symbols that nothing reads at run time")


def _protection(package: Package, binary: Binary) -> Iterator[Finding]:
    path, headers = binary.member.path, binary.elf
    if headers.executable_stack:
        yield error("executable-stack", package.name, path, "can run code on its stack")
    if headers.text_relocations:
        yield error("text-relocations", package.name, path, "has to write to its own code to start")
    if not headers.relro:
        yield warning("relro", package.name, path, "leaves its linkage tables writable")
    elif not headers.bind_now:
        yield warning("relro", package.name, path, "leaves part of its linkage tables writable (no BIND_NOW)")
    if headers.interpreter and not headers.position_independent:
        yield warning("pie", package.name, path, "is always at the same address in memory")


def _stack_protector(package: Package, binaries: list[Binary]) -> Iterator[Finding]:
    """Small functions need no guard, so single files say little, and all files together much."""
    linked = [binary for binary in binaries if binary.elf.dynamic]
    guarded = sum(binary.elf.stack_protector for binary in linked)
    if guarded * 2 < len(linked):
        message = f"{guarded} of {len(linked)} programs and libraries guard their stack"
        yield warning("stack-protector", package.name, "", message)
