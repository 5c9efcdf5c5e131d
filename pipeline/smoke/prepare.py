"""Prepare a test host, keeping from run to run what is costly to make.

What is kept is found by the hash of what it is made from, and carries its own hash: a damaged one is made
anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from pipeline import log
from pipeline.files import sha256, write_bytes, write_text
from pipeline.scratch import scratch as scratch_folder
from pipeline.smoke import supplies as supplying
from pipeline.smoke.cpio import File, Symlink, Tree, with_folders
from pipeline.smoke.disk import write_disk, write_ext4
from pipeline.smoke.dom0 import GUEST_MODULES, MODULES, MODULES_OF_SOME, HostFiles
from pipeline.smoke.hardware import Direct, Drive, Hardware
from pipeline.smoke.kernel import Kernel, read_kernel_package
from pipeline.smoke.packing import Packing
from pipeline.smoke.plan import Suite

T = TypeVar("T")
_FORMAT = 5
_SPARE = 256 << 20
"""Room on each drive, in bytes; it costs nothing until something is written there."""
KEPT_DRIVES = 8
MEMORY = 1024
"""The memory of a test host, in MiB."""


class _Kernel(msgspec.Struct, frozen=True):
    release: str
    vmlinux: bytes
    modules: dict[str, bytes]
    packing: Packing
    image: bytes


class _Files(msgspec.Struct, frozen=True):
    files: dict[str, tuple[bytes, int]]
    links: dict[str, str]


def kernel(package: Path, scratch: Path) -> Kernel:
    """Read a kernel package, or what an earlier run kept of the same one (5 s less)."""

    def make() -> _Kernel:
        read = read_kernel_package(package, (*MODULES, *GUEST_MODULES), MODULES_OF_SOME)
        return _Kernel(read.release, read.vmlinux, dict(read.modules), read.packing, read.image)

    asked = [sha256(package), *MODULES, *GUEST_MODULES, "?", *MODULES_OF_SOME]
    kept = _kept(scratch, "kernel", asked, _Kernel, make)
    return Kernel(kept.release, kept.vmlinux, kept.modules, kept.packing, kept.image)


def supplies(packages: Mapping[str, Path], scratch: Path) -> Tree:
    """Read the packages that supplies.sources names, or what an earlier run kept of the same ones."""

    def make() -> _Files:
        read = supplying.read(packages)
        files = {path: (e.data, e.mode) for path, e in read.items() if isinstance(e, File)}
        return _Files(files, {path: e.target for path, e in read.items() if isinstance(e, Symlink)})

    kept = _kept(scratch, "supplies", [sha256(path) for path in packages.values()], _Files, make)
    tree: Tree = {path: File(data, mode) for path, (data, mode) in kept.files.items()}
    return with_folders(tree | {path: Symlink(to) for path, to in kept.links.items()})


def _kept(scratch: Path, name: str, inputs: Sequence[str], kind: type[T], make: Callable[[], T]) -> T:
    key = hashlib.sha256(" ".join([str(_FORMAT), *inputs]).encode()).hexdigest()
    file = scratch / f"{name}-{key[:32]}.msgpack"
    if file.is_file():
        data = file.read_bytes()
        if hashlib.sha256(data[32:]).digest() == data[:32]:
            return msgspec.msgpack.decode(data[32:], type=kind)
        log.warn(f"{file} is damaged, and made anew.")
    made = make()
    data = msgspec.msgpack.encode(made)
    write_bytes(file, hashlib.sha256(data).digest() + data)
    return made


def hardware(host: HostFiles, folder: Path, scratch: Path, suite: Suite) -> Hardware:
    """Return the machine of a test host; ``folder`` takes its boot files, ``scratch`` keeps its drives.

    It has what the suite brings along: a drive with its goods, and its drives.
    """
    kept = scratch / "drives"
    trees = [(host.goods, write_ext4), (host.disk, write_disk), ({}, write_ext4)]
    trees += [(suite.goods, write_ext4)] if suite.goods or suite.drives else []
    drives = (*(Drive(drive(tree, kept, write)) for tree, write in trees), *suite.drives)
    return Hardware(Direct.write(host.boot, folder), memory=max(MEMORY, suite.memory), drives=drives)


def drive(tree: Tree, folder: Path, write: Callable[..., None]) -> Path:
    """Return the image of a drive with a tree on it, made by ``write`` unless it is there."""
    digest = hashlib.sha256(f"{_FORMAT} {write.__name__}".encode())
    for path, entry in sorted(tree.items()):
        data = entry.data if isinstance(entry, File) else b""
        what = [path, type(entry).__name__, getattr(entry, "mode", 0), getattr(entry, "target", "")]
        digest.update(repr([*what, hashlib.sha256(data).hexdigest()]).encode())
    image = folder / f"{digest.hexdigest()[:32]}.img"
    known = image.with_suffix(".sha256")
    if image.exists() and known.exists():
        if sha256(image) == known.read_text():
            image.touch()
            return image
        log.warn(f"{image} is damaged, and made anew.")
    with scratch_folder(folder, "drive") as work:
        made = work / image.name
        write(tree, made, spare=_SPARE)
        write_text(known, sha256(made))
        made.rename(image)
    for old in sorted(folder.glob("*.img"), key=lambda path: path.stat().st_mtime)[:-KEPT_DRIVES]:
        old.unlink(missing_ok=True)
        old.with_suffix(".sha256").unlink(missing_ok=True)
    return image
