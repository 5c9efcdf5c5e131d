"""All that a release needs from outside, into the store in one go, or from a folder on this host."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import fetch as downloads
from pipeline import log
from pipeline.errors import IntegrityError, UsageError
from pipeline.fetch import HINT, OFFLINE_HINT, DownloadError, Missing
from pipeline.git.fetch import GitFetch, Place
from pipeline.mirrors import Mirrors
from pipeline.source import GitSource, Source
from pipeline.store import Store


@dataclass(frozen=True)
class Found:
    """What a local folder may hold: files by their size in bytes, and git repositories."""

    files: dict[int, list[Path]]
    repositories: list[Path]


def obtain(
    sources: Sequence[Source],
    repositories: Sequence[GitSource],
    store: Store,
    mirrors: Mirrors,
    *,
    project: Path,
    jobs: int = 4,
    offline: bool = False,
    folder: Path | None = None,
) -> dict[Source | GitSource, Path]:
    """Bring files and git sources into the store at the same time, and return their paths there.

    ``folder`` is looked through first, whatever its files are called. ``project`` is the folder that key
    files are counted from. Raises DownloadError, which lists all that is missing, and what
    pipeline.fetch.fetch and pipeline.git.fetch raise.
    """
    clones: tuple[str, ...] = ()
    if folder is not None:
        found = look(folder, {source.size for source in sources})
        take(sources, found, store)
        clones = tuple(path.as_uri() for path in found.repositories)
    place = Place(store, mirrors, project, clones, offline)
    files: dict[str, Path] = {}
    missing: list[Missing] = []
    with GitFetch(repositories, place, jobs=jobs) as git:
        try:
            files = downloads.fetch(sources, store, mirrors, jobs=jobs, offline=offline)
        except DownloadError as e:
            missing += e.missing
        tars, missing_commits = git.wait()
    missing += missing_commits
    if missing:
        total = len(sources) + len(repositories)
        raise DownloadError(missing, total, OFFLINE_HINT if offline else HINT)
    found_all: dict[Source | GitSource, Path] = {source: files[source.sha256] for source in sources}
    return found_all | dict(tars.items())


def look(folder: Path, sizes: set[int]) -> Found:
    """List a folder's files of certain sizes and its git repositories, at any depth and behind links.

    What cannot be read is named and left out. Raises UsageError where there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder.")
    found = Found({}, [])

    def unreadable(e: OSError) -> None:
        log.warn(f"{e.filename} cannot be read: {e.strerror}.")

    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder.resolve(), onerror=unreadable, followlinks=True):
        here = Path(parent)
        info = here.stat()
        if (info.st_dev, info.st_ino) in seen:  # links may lead in a circle
            folders.clear()
            continue
        seen.add((info.st_dev, info.st_ino))
        if _is_bare({*folders, *names}):
            found.repositories.append(here)
            folders.clear()
            continue
        if ".git" in folders or ".git" in names:
            found.repositories.append(here)
        folders[:] = sorted(name for name in folders if name != ".git")
        for path, size in _sizes(here / name for name in sorted(names)):
            if size in sizes:
                found.files.setdefault(size, []).append(path)
    return found


def _is_bare(names: set[str]) -> bool:
    return {"HEAD", "objects", "refs"} <= names


def _sizes(paths: Iterator[Path]) -> Iterator[tuple[Path, int]]:
    for path in paths:
        try:
            info = path.stat()
        except OSError:  # a dangling link
            continue
        if stat.S_ISREG(info.st_mode):
            yield path, info.st_size


def take(sources: Sequence[Source], found: Found, store: Store) -> None:
    """Copy those of the files into the store that are sources it does not hold; raises StoreError."""
    for source in dict.fromkeys(sources):
        try:
            if store.get(source) is not None:
                continue
        except IntegrityError as e:
            log.warn(e.message)
        for path in found.files.get(source.size, []):
            try:
                store.add_file(path, source.sha256)
            except IntegrityError:
                continue  # another file of the same size
            log.info(f"{source.name}: taken from {path}")
            break
