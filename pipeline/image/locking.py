"""From a definition to its lock: what is resolved today, or on a day of the archive, and what it becomes."""

from __future__ import annotations

import filelock
import msgspec

from pipeline import files, log
from pipeline.errors import HostError, UsageError
from pipeline.fetch import fetch
from pipeline.image import arch, assembly, debian, tree
from pipeline.image.archive import ArchiveError
from pipeline.image.assembly import Image
from pipeline.image.definition import (
    ArchDefinition,
    DebianDefinition,
    Definition,
    definition_path,
    definition_sha256,
    read_definition,
    set_snapshot,
)
from pipeline.image.lock import ArchLock, DebianLock, Lock, lock_path, render_lock
from pipeline.image.oci import DockerImage
from pipeline.image.proof import prove
from pipeline.mirrors import Mirrors
from pipeline.scratch import scratch
from pipeline.store import Store


def ensure(name: str, store: Store, mirrors: Mirrors, *, jobs: int = 4) -> None:
    """Make image ``name``'s lock where there is none, and say so; raises what `make` does."""
    definition_path(name)
    if lock_path(name).is_file():
        return
    (store.root / "images").mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(store.root / "images" / f"{name}.new-lock"):
        if not lock_path(name).is_file():
            lock = make(name, store, mirrors, jobs=jobs)
            log.info(f"Image {name} had no lock: {describe(lock)}. Commit {lock_path(name)}.")


def describe(lock: Lock) -> str:
    """What a lock holds, in a few words."""
    origin = f"Arch on {lock.snapshot}" if isinstance(lock, ArchLock) else "Debian today"
    return f"it is now {len(lock.packages)} packages of {origin}"


def make(name: str, store: Store, mirrors: Mirrors, *, jobs: int = 4, date: str = "") -> Lock:
    """Resolve, fetch, assemble and prove image ``name``, and write its lock.

    A Debian image is resolved from today's suite, an Arch image from its snapshot. ``date`` is another day
    of the archive for the latter; the definition names that day from then on. Raises HostError where an
    archive does not answer, UsageError for what cannot be resolved, IntegrityError and ProofError.
    """
    definition = read_definition(name)
    if date:
        definition = _dated(name, definition, date)
    try:
        unfinished = _resolve(name, definition, store, mirrors, jobs)
    except ArchiveError as e:
        if isinstance(definition, ArchDefinition):
            e.hint = definition.way_out
        raise
    found = assembly.obtain(definition, unfinished, store, mirrors, jobs=jobs)
    if isinstance(unfinished, DebianLock) and unfinished.kernel is not None:
        fetch([unfinished.kernel.source], store, mirrors, jobs=1)
    with scratch(store.root / "scratch", "lock") as folder, log.step(f"Assembling {name}"):
        (folder / "work").mkdir()
        rootfs = assembly.from_files(definition, unfinished, found, folder / "work")
        sha256 = rootfs.settle(store, folder / "image")
        manifest = tree.manifest(folder / "image" / "root")
        prove(name, definition, folder / "image" / "root", store)
        lock: Lock = msgspec.structs.replace(
            unfinished,
            rootfs_sha256=sha256,
            tree_sha256=tree.manifest_sha256(manifest),
            image_id=DockerImage(sha256, unfinished.source_date_epoch).id,
        )
        assembly.adopt(Image(name, lock, store), folder)
    if date:
        set_snapshot(name, date)
    files.write_text(lock_path(name), render_lock(lock))
    return lock


def _dated(name: str, definition: Definition, date: str) -> Definition:
    if not isinstance(definition, ArchDefinition):
        raise UsageError(f"Image {name} is Debian's, which has no days.", hint="--date is for Arch images.")
    try:
        return msgspec.convert({**msgspec.to_builtins(definition), "snapshot": date}, ArchDefinition)
    except msgspec.ValidationError as e:
        raise UsageError(f"{date!r} is no day.", hint="--date 2013-12-31") from e


def _resolve(name: str, definition: Definition, store: Store, mirrors: Mirrors, jobs: int) -> Lock:
    """Return a lock but for the hashes of what has not been assembled yet."""
    unknown = "0" * 64
    pins = {"rootfs_sha256": unknown, "tree_sha256": unknown, "image_id": f"sha256:{unknown}"}
    pins["definition_sha256"] = definition_sha256(definition)
    if isinstance(definition, ArchDefinition):
        with log.step(f"Resolving {name} on {definition.snapshot}"):
            day = arch.resolve(definition, store, mirrors, jobs=jobs)
        return ArchLock(
            **pins,
            source_date_epoch=day.source_date_epoch,
            snapshot=definition.snapshot,
            databases=day.databases,
            urls=day.urls,
            packages=day.packages,
        )
    suite = _resolve_debian(definition, store, mirrors)
    return DebianLock(
        **pins,
        source_date_epoch=suite.source_date_epoch,
        release_sha256=suite.release_sha256,
        packages=suite.packages,
        kernel=suite.kernel,
    )


def _resolve_debian(definition: DebianDefinition, store: Store, mirrors: Mirrors) -> debian.Resolution:
    """Resolve against the first Debian mirror that answers."""
    failures = []
    for root in mirrors.resolve("debian:dists"):
        mirror = root.removesuffix("/dists")
        with (
            scratch(store.root / "scratch", "apt") as folder,
            log.step(f"Resolving {definition.suite} on {mirror}"),
        ):
            try:
                return debian.resolve(definition, mirror, folder)
            except HostError as e:
                failures.append(f"{mirror}: {e.message} {e.hint or ''}")
    raise HostError(f"No Debian mirror could resolve suite {definition.suite}.", hint="\n".join(failures))
