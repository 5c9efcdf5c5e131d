"""Where a release's sources may be had, and whether anybody answers there: one request a place."""

from __future__ import annotations

import contextlib
import email.utils
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests

from pipeline.errors import CommandError, PipelineError
from pipeline.git.command import environment, reason
from pipeline.git.fetch import Place as Home
from pipeline.git.fetch import noted
from pipeline.image.lock import Lock
from pipeline.mirrors import Mirrors
from pipeline.run import run
from pipeline.source import GitSource, Source
from pipeline.transport import shown, why
from pipeline.version import PROJECT

if TYPE_CHECKING:
    from pipeline.release import Release
    from pipeline.settings import Settings

PATIENCE = 8.0
"""Seconds that a place may take to answer."""
_AT_ONCE = 16


@dataclass
class Place:
    """A server or a folder: one of its files to ask for, and the sources that are still missing here."""

    name: str
    example: str
    git: bool
    missing: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Answer:
    """What a place said: ``problem`` is empty where it answered, after ``seconds``.

    ``date`` is its clock, in seconds since 1970, where it told. ``missing`` are the sources that this host
    lacks and that may be had there.
    """

    place: str
    seconds: float
    problem: str
    date: float | None
    missing: frozenset[str]


def ask(release: Release, locks: Mapping[str, Lock], settings: Settings) -> Sequence[Answer]:
    """Ask each place once, all at the same time."""
    found = list(places(release, locks, settings).values())
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda place: _ask(place, settings.open_store.root), found))


def places(release: Release, locks: Mapping[str, Lock], settings: Settings) -> dict[str, Place]:
    """The places of all that the release and its images are made of."""
    store, mirrors = settings.open_store, settings.open_mirrors
    files: list[Source] = [*release.sources]
    for lock in locks.values():
        if not store.path(lock.rootfs_sha256).is_file():
            files += lock.sources
    found: dict[str, Place] = {}
    for source in files:
        held = store.path(source.sha256).is_file()
        _add(found, mirrors, source, source.name, held=held)
    for git in release.git:
        _add(found, mirrors, git, git.name, held=noted(git, Home(store, mirrors, PROJECT)))
    return found


def _add(
    found: dict[str, Place], mirrors: Mirrors, source: Source | GitSource, name: str, *, held: bool
) -> None:
    for url in _resolved(mirrors, source.urls):
        parts = urlsplit(url)
        git = isinstance(source, GitSource)
        # One file says as much of a server as all; each folder and repository is a place of its own.
        key = shown(url) if git or parts.scheme == "file" else f"{parts.scheme}://{parts.netloc}"
        place = found.setdefault(key, Place(shown(key), url, git))
        if not held:
            place.missing.add(name)


def _resolved(mirrors: Mirrors, urls: Iterable[str]) -> list[str]:
    found: dict[str, None] = {}
    for url in urls:
        with contextlib.suppress(PipelineError, ValueError):
            found |= dict.fromkeys(mirrors.resolve(url))
    return list(found)


def _ask(place: Place, store: Path) -> Answer:
    start = time.monotonic()
    date: float | None = None
    try:
        if place.git:
            problem = _ask_git(place.example, store)
        elif place.example.startswith("file:"):
            problem = "" if Path(url2pathname(urlsplit(place.example).path)).exists() else "is not there"
        else:
            problem, date = _ask_server(place.example)
    except PipelineError as e:
        problem = e.message
    return Answer(place.name, time.monotonic() - start, problem, date, frozenset(place.missing))


def _ask_server(url: str) -> tuple[str, float | None]:
    """Ask for a file's first byte; returns what is wrong, and the server's clock."""
    headers = {"Range": "bytes=0-0", "Accept-Encoding": "identity", "User-Agent": "xen-aur-pipeline"}
    try:
        with requests.get(url, headers=headers, timeout=PATIENCE, stream=True) as answer:
            date = _seconds(answer.headers.get("Date"))
            if answer.ok:
                return "", date
            return f"answers HTTP {answer.status_code} {answer.reason or ''}".rstrip(), date
    except (requests.RequestException, ValueError) as e:
        return why(e), None


def _seconds(date: str | None) -> float | None:
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        return email.utils.parsedate_to_datetime(date or "").timestamp()
    return None


def _ask_git(url: str, store: Path) -> str:
    try:
        run(
            ["git", "ls-remote", "--quiet", "--exit-code", url, "HEAD"],
            env=environment(store),
            timeout=PATIENCE,
        )
    except CommandError as e:
        return reason((e.hint or "").partition("\n")[2])
    return ""
