"""Disk and memory, against what the release still needs here."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline import log
from pipeline.doctor.finding import Finding, State, Subject

_PART = "room"
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup/memory.max")
_UNPACKED = 4
"""A root file system and its tar, each some times as large as the packages that it is made of."""


def room(subject: Subject) -> Iterator[Finding]:
    """Look at store, artifacts and memory."""
    yield from disk(subject)
    yield memory(subject, _MEMINFO, _CGROUP)


def disk(subject: Subject) -> Iterator[Finding]:
    """Whether the folders can be written to, and hold what is still to come."""
    need = needed_bytes(subject)
    for what, folder, wanted in (
        ("store", subject.store, need),
        ("artifacts", subject.settings.artifacts_folder, subject.release.room.artifacts << 20),
    ):
        place = next(p for p in (folder, *folder.parents) if p.exists())
        problem = _unwritable(place)
        if problem is not None:
            yield Finding(
                part=_PART,
                what=what,
                state=State.TROUBLE,
                says=f"{place} cannot be written to: {problem}.",
                remedy=f"Set `{what}` to a folder that can (INVOKE_PIPELINE_{what.upper()}).",
            )
            continue
        free = shutil.disk_usage(place).free
        says = f"{log.size(free)} free in {place}; {subject.release.name} takes {log.size(wanted)} there."
        state = State.FINE if free >= wanted else State.TROUBLE
        remedy = (
            "" if state is State.FINE else f"Free some space, or set `{what}` to a folder on another disk."
        )
        yield Finding(part=_PART, what=what, state=state, says=says, remedy=remedy)


def _unwritable(folder: Path) -> str | None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as e:
        return e.strerror or str(e)


def needed_bytes(subject: Subject) -> int:
    """What the store still takes for the release: what is to be fetched, images, and a build's workspace."""
    store = subject.settings.open_store
    need = subject.release.room.build << 20
    need += sum(s.size for s in subject.release.sources if not store.path(s.sha256).is_file())
    for lock in subject.locks.values():
        if (store.root / "images" / lock.rootfs_sha256).is_dir():
            continue
        packages = sum(s.size for s in lock.sources)
        need += _UNPACKED * packages + sum(s.size for s in lock.sources if not store.path(s.sha256).is_file())
    return need


def memory(subject: Subject, meminfo: Path, cgroup: Path) -> Finding:
    """Whether there is as much memory as the build's largest moment takes, and within a cgroup's limit."""
    table = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    kib = {key: int(value.split()[0]) for key, value in table.items() if value.split()}
    free = (kib["MemAvailable"] + kib.get("SwapFree", 0)) << 10
    limit = cgroup.read_text().strip() if cgroup.is_file() else "max"
    if limit.isdigit():
        free = min(free, int(limit))
    # Each compiler takes its part, and so does the machine that smoke boots.
    jobs = subject.settings.compile_jobs
    wanted = (subject.release.room.memory + jobs * subject.release.room.each_job) << 20
    says = f"{log.size(free)} can be had; a build with {jobs} jobs and a boot take {log.size(wanted)}."
    if free >= wanted:
        return Finding(part=_PART, what="memory", state=State.FINE, says=says)
    remedy = "Close something, add swap, or set `jobs` lower; a compiler that gets no memory is killed."
    return Finding(part=_PART, what="memory", state=State.TROUBLE, says=says, remedy=remedy)
