"""Every reader of what others wrote: whatever the bytes are, it gives a value or the error that it promises.

A target takes bytes and returns nothing. Any exception that is no PipelineError is a finding, and so is what
takes more time or memory than the runner allows.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
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
from pipeline.bundle import manifest, requirements
from pipeline.engine.guard import Told
from pipeline.engine.job import NetworkAttemptError
from pipeline.errors import PipelineError
from pipeline.evidence import Kind
from pipeline.git import objects, tags
from pipeline.image import archive as arch_archive
from pipeline.image import lock
from pipeline.release import BranchLock, Release
from pipeline.smoke import agent, kernel, qemu, serial, timeline
from pipeline.smoke.guests.config import GuestConfig
from pipeline.smoke.guests.disk import Disk
from pipeline.smoke.layers import read_packages
from pipeline.smoke.xtf import catalog, outcome
from pipeline.transfer import remote

Target = Callable[[bytes], object]
_MEMORY = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None


class RefusedError(PipelineError):
    """What a reader refuses by an error that its callers know, and users never see."""


@contextlib.contextmanager
def _file(data: bytes, suffix: str = "") -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(dir=_MEMORY, suffix=suffix) as file:
        file.write(data)
        file.flush()
        yield Path(file.name)


def _package(data: bytes) -> object:
    with _file(data, ".pkg.tar.xz") as path:
        return package.read(path)


def _layer(data: bytes) -> object:
    with _file(data, ".pkg.tar.xz") as path:
        return read_packages([path])


def _lock(arch: bool) -> Target:
    def target(data: bytes) -> object:
        # Sealed anew: what has no seal that fits is refused before anything else is looked at.
        body = data.decode(errors="replace").rpartition("\nseal = ")[0] + "\n"
        with _file(f'{body}seal = "{lock._sealed(body)}"\n'.encode(), ".lock") as path:
            return lock.parse_lock(path, arch=arch)

    return target


def _release(data: bytes) -> object:
    try:
        return msgspec.convert(tomllib.loads(data.decode()), Release)
    except (msgspec.ValidationError, ValueError, RecursionError) as e:
        raise RefusedError("refused") from e


def _bundle(data: bytes) -> object:
    with tempfile.TemporaryDirectory(dir=_MEMORY) as folder:
        bundles.Reader(io.BytesIO(data)).unpack(Path(folder))
        outside = [path for path in Path(folder).rglob("*") if path.is_symlink()]
        assert not outside
        return True


def _serial(data: bytes) -> object:
    watcher = serial.SerialWatcher(io.BytesIO())
    half = len(data) // 2
    watcher.feed(data[:half], 0.1)
    watcher.feed(data[half:], 0.2)
    watcher.finish(0.3)
    return watcher.banner


def _xtf_info(data: bytes) -> object:
    try:
        return catalog.parse_info("x", data)
    except (ValueError, msgspec.MsgspecError) as e:
        raise RefusedError("refused") from e


def _xtf_console(data: bytes) -> object:
    text = data.decode(errors="replace")
    outcome.interpret(text)
    return outcome.capabilities(text)


def _guest_config(data: bytes) -> object:
    with _file(data, ".cfg") as path:
        config = GuestConfig.read(path)
    # What is written for the test host's xl is what was read.
    assert GuestConfig.parse(str(config)) == config
    return config


def _qmp(data: bytes) -> object:
    from qemu.qmp.message import Message

    try:
        return Message(data)
    except qemu._FAILURES as e:
        raise RefusedError("refused") from e


def _record(kind: type[msgspec.Struct]) -> Target:
    def target(data: bytes) -> object:
        try:
            return records.decode(data, kind)
        except records.RecordError as e:
            raise RefusedError("refused") from e

    return target


def _signature(data: bytes) -> object:
    """After the fingerprint of the key: a signature of nothing."""
    signer = data[:40].decode(errors="replace")
    if not re.fullmatch("[0-9A-F]{40}", signer):
        # gpg says who it was.
        raise RefusedError("refused")
    return openpgp.is_exact(data[40:], signer, Path("/dev/null"))


def _git(parse: Callable[[bytes], object]) -> Target:
    def target(data: bytes) -> object:
        try:
            return parse(data)
        except ValueError as e:
            raise RefusedError("refused") from e

    return target


def _database(data: bytes) -> object:
    with _file(data, ".db") as path:
        return arch_archive.read_database(path, "core")


def _guard(data: bytes) -> object:
    told = Told(lambda _: None, guarded=False)
    for line in data.decode(errors="replace").split("\n"):
        told.line(line)
    try:
        told.judge(1 << 30)
    except NetworkAttemptError as e:
        return e
    return None


TARGETS: Mapping[str, Target] = {
    "package": _package,
    "layer": _layer,
    "key-values": lambda data: package.parse_key_values("x", ".PKGINFO", data),
    "mtree": lambda data: package.parse_mtree("x", data),
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
    "tag": _git(tags.parse),
    "manifest": manifest.decode,
    "bundle": _bundle,
    "agent": lambda data: agent.parse_reply(data, 7),
    "serial": _serial,
    "qmp": _qmp,
    "xtf-info": _xtf_info,
    "xtf-console": _xtf_console,
    "guest-config": _guest_config,
    "guest-disk": lambda data: Disk.parse(data.decode(errors="replace"), Path("/")),
    "evidence": lambda data: evidence.decode(Path("x"), data, Kind.CHECK),
    "provenance": provenance.subjects,
    "build-record": _record(BuildRecord),
    "branch-lock": _record(BranchLock),
    "signature": _signature,
    "gpg-status": lambda data: signing.judge(data.decode(errors="replace")),
    "git-commit": _git(objects.parse_commit),
    "git-tree": _git(objects.parse_tree),
    "elf": lambda data: elf.read("x", data),
    "glibc": lambda data: max(requirements._glibc(data), key=requirements.order, default=None),
    "bzimage": kernel.unpack_bzimage,
    "modules": kernel.module_dependencies,
    "apt": lambda data: mirrors.parse_apt_targets(data.decode(errors="replace")),
    "retry-after": lambda data: transport.retry_after(data.decode(errors="replace")),
}


def feed(name: str, data: bytes) -> None:
    """Give bytes to a target; raises what is a finding, and nothing else."""
    with contextlib.suppress(PipelineError):
        TARGETS[name](data)
