"""Every reader of what others wrote: whatever the bytes are, it gives a value or the error that it promises.

A target takes bytes and returns nothing. Any exception that is no PipelineError is a finding, and so is what
takes more time or memory than the runner allows.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from pipeline import (
    aur,
    elf,
    evidence,
    mirrors,
    openpgp,
    package,
    provenance,
    records,
    seal,
    signing,
    transport,
)
from pipeline.build import BuildRecord
from pipeline.bundle import archive as bundles
from pipeline.bundle import manifest
from pipeline.engine.guard import Told
from pipeline.errors import PipelineError
from pipeline.evidence import Kind
from pipeline.git import objects, tags
from pipeline.image import archive as arch_archive
from pipeline.image import lock
from pipeline.release import BranchLock, Release
from pipeline.smoke import agent, kernel, qemu, serial, timeline
from pipeline.smoke.layers import read_packages
from pipeline.smoke.xtf import catalog, outcome
from pipeline.transfer import remote

Target = Callable[[bytes], object]
_MEMORY = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None


@contextlib.contextmanager
def _file(data: bytes, suffix: str = "") -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(dir=_MEMORY, suffix=suffix) as file:
        file.write(data)
        file.flush()
        yield Path(file.name)


def _package(data: bytes) -> None:
    with _file(data, ".pkg.tar.xz") as path:
        package.read(path)


def _layer(data: bytes) -> None:
    with _file(data, ".pkg.tar.xz") as path:
        read_packages([path])


def _lock(arch: bool) -> Target:
    def target(data: bytes) -> None:
        with _file(data, ".lock") as path:
            lock.parse_lock(path, arch=arch)

    return target


def _release(data: bytes) -> None:
    with contextlib.suppress(
        msgspec.ValidationError, tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, ValueError
    ):
        msgspec.convert(tomllib.loads(data.decode()), Release)


def _bundle(data: bytes) -> None:
    with tempfile.TemporaryDirectory(dir=_MEMORY) as folder:
        bundles.Reader(io.BytesIO(data)).unpack(Path(folder))
        outside = [path for path in Path(folder).rglob("*") if path.is_symlink()]
        assert not outside


def _serial(data: bytes) -> None:
    watcher = serial.SerialWatcher(io.BytesIO())
    half = len(data) // 2
    watcher.feed(data[:half], 0.1)
    watcher.feed(data[half:], 0.2)
    watcher.finish(0.3)


def _xtf_info(data: bytes) -> None:
    with contextlib.suppress(ValueError, msgspec.MsgspecError):
        catalog.parse_info("x", data)


def _xtf_console(data: bytes) -> None:
    text = data.decode(errors="replace")
    outcome.interpret(text)
    outcome.capabilities(text)


def _qmp(data: bytes) -> None:
    from qemu.qmp.message import Message

    with contextlib.suppress(*qemu._FAILURES):
        Message(data)


def _record(kind: type[msgspec.Struct]) -> Target:
    def target(data: bytes) -> None:
        with contextlib.suppress(records.RecordError):
            records.decode(data, kind)

    return target


def _signature(data: bytes) -> None:
    openpgp.is_exact(data, "0" * 40, Path(__file__))
    signing.judge(data.decode(errors="replace"))


def _tag(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        tags.parse(data)


def _git(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        objects.parse_tree(data)
    with contextlib.suppress(ValueError):
        objects.parse_commit(data)


def _database(data: bytes) -> None:
    with _file(data, ".db") as path:
        arch_archive.read_database(path, "core")


def _guard(data: bytes) -> None:
    told = Told(lambda _: None)
    for line in data.decode(errors="replace").split("\n"):
        told.line(line)
    told.judge(1 << 30)


TARGETS: Mapping[str, Target] = {
    "package": _package,
    "layer": _layer,
    "key-values": lambda data: package.parse_key_values("x", ".PKGINFO", data),
    "mtree": lambda data: package.parse_mtree("x", data),
    # Hardly any change of packed bytes can be unpacked.
    "mtree-text": lambda data: package.parse_mtree("x", gzip.compress(data, 1)),
    "debian-lock": _lock(False),
    "arch-lock": _lock(True),
    "arch-entry": lambda data: arch_archive.parse_entry(data, "core"),
    "arch-database": _database,
    "release": _release,
    "guard": _guard,
    "seal": seal.parse,
    "srcinfo": lambda data: aur.parse(data.decode(errors="replace")),
    "probe": lambda data: remote.parse_probe("host", data.decode(errors="replace"), ["a.pkg.tar.xz"]),
    "timeline": lambda data: list(timeline.read_log(data.decode(errors="replace"))),
    "tag": _tag,
    "manifest": manifest.decode,
    "bundle": _bundle,
    "agent": lambda data: agent.parse_reply(data, 7),
    "serial": _serial,
    "qmp": _qmp,
    "xtf-info": _xtf_info,
    "xtf-console": _xtf_console,
    "evidence": lambda data: evidence.decode(Path("x"), data, Kind.CHECK),
    "provenance": provenance.subjects,
    "build-record": _record(BuildRecord),
    "branch-lock": _record(BranchLock),
    "signature": _signature,
    "git-objects": _git,
    "elf": lambda data: elf.read("x", data),
    "bzimage": kernel.unpack_bzimage,
    "modules": kernel.module_dependencies,
    "apt": lambda data: mirrors.parse_apt_targets(data.decode(errors="replace")),
    "retry-after": lambda data: transport.retry_after(data.decode(errors="replace")),
}


def feed(name: str, data: bytes) -> None:
    """Give bytes to a target; raises what is a finding, and nothing else."""
    with contextlib.suppress(PipelineError):
        TARGETS[name](data)
