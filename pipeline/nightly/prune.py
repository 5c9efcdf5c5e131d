"""Room on the disk: old nightly builds go, but nothing that anything still points to."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline import build as builds
from pipeline import log, records
from pipeline.build import Build
from pipeline.builder import CompiledRecord
from pipeline.scratch import scratch
from pipeline.store import Store

LAST_GOOD = "last-good"
"""The link, in a release's folder, to the newest build that passed everything."""
_LINKS = ("latest", LAST_GOOD)


@dataclass(frozen=True)
class Removed:
    """What pruning took away: builds by id, and the bytes that they and their compiled trees had."""

    builds: tuple[str, ...]
    size: int


def prune(artifacts: Path, release: str, store: Store, budget: int, keep: Collection[str] = ()) -> Removed:
    """Remove the release's oldest builds until the others have ``budget`` bytes or less.

    Builds that a link names or that ``keep`` lists stay, whatever they take. A compiled tree in the store
    goes with the last build, of any release, that was made of it.
    """
    folder = artifacts / release
    spared = {*keep, *(target for link in _LINKS if (target := _target(folder / link)) is not None)}
    found = sorted(builds.every(folder), key=lambda build: build.record.finished)
    sizes = {build.folder.name: _size(build.folder) for build in found}
    total = sum(sizes.values())
    gone: list[Build] = []
    for build in found:
        if total <= budget:
            break
        if build.folder.name in spared:
            continue
        total -= sizes[build.folder.name]
        gone.append(build)
    freed = sum(sizes[build.folder.name] for build in gone)
    for build in gone:
        # Under its own name it is whole or not there at all.
        with scratch(folder, "pruned") as temporary:
            build.folder.rename(temporary / "build")
        freed += forget(store, [artifacts], build.record.compile_key)
    if gone:
        log.info(f"{len(gone)} old builds removed, {log.size(freed)}")
    return Removed(tuple(build.folder.name for build in gone), freed)


def _target(link: Path) -> str | None:
    with contextlib.suppress(OSError):
        return link.readlink().name
    return None


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size
    return total


def forget(store: Store, artifacts: Iterable[Path], compile_key: str) -> int:
    """Remove a compiled tree that no build below the folders ``artifacts`` is left of; returns its size."""
    for folder in (folder for top in artifacts if top.is_dir() for folder in top.iterdir()):
        if any(build.record.compile_key == compile_key for build in builds.every(folder)):
            return 0
    compiled = store.root / "compiled"
    record = compiled / f"{compile_key}.json"
    try:
        tree = records.decode(record.read_bytes(), CompiledRecord).staging_sha256
    except (OSError, records.RecordError):
        return 0
    record.unlink(missing_ok=True)
    (compiled / f"{compile_key}.log").unlink(missing_ok=True)
    for other in compiled.glob("*.json"):
        with contextlib.suppress(OSError, records.RecordError):
            if records.decode(other.read_bytes(), CompiledRecord).staging_sha256 == tree:
                return 0  # two recipes, one tree
    entry = store.path(tree)
    with contextlib.suppress(OSError):
        size = entry.stat().st_size
        entry.unlink()
        return size
    return 0
