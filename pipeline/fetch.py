"""Downloads into the store: in parallel, resumed, from the mirrors in order, by size and SHA-256."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Never, Protocol
from urllib.parse import urlsplit

import msgspec
from tqdm import tqdm

from pipeline import log
from pipeline.errors import HostError, IntegrityError, UsageError
from pipeline.mirrors import Mirrors, NoMirrorError
from pipeline.source import GitSource, Source
from pipeline.store import CancelledError, Store, Writer
from pipeline.transport import Limits, RangeError, RefusedError, TransientError, Transport, shown

BLOCK = 256 << 10
"""How many bytes are read from a server at most at once."""

_WORTHWHILE = 64 << 10
_DRAW_EVERY = 0.2
_LINE_EVERY = 10.0
_FEW = 20
_PATIENCE = 2.0
HINT = "The setting mirrors.rewrites can name other places for them, and `./inv fetch --from DIR` a folder."
OFFLINE_HINT = "The network is off; run ./inv fetch with it on."


class WrongBytesError(RefusedError):
    """A URL gave bytes with another SHA-256 than the pinned one."""


@dataclass(frozen=True)
class Missing:
    """A source that could not be had, and why each of its URLs did not give it."""

    source: Source | GitSource
    reasons: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        lines = [f"{self.source.name} ({self.source.pin})"]
        lines += [f"  {shown(url)}: {reason}" for url, reason in self.reasons]
        return "\n".join(lines)


class DownloadError(HostError):
    """Sources could not be had; ``missing`` lists all of them."""

    def __init__(self, missing: Sequence[Missing], total: int, hint: str | None) -> None:
        details = "".join(f"\n{entry}" for entry in missing)
        super().__init__(f"{len(missing)} of {total} files could not be fetched:{details}", hint)
        self.missing = tuple(missing)


@dataclass
class _Job:
    """A file on its way. Its worker writes the fields, the main thread draws them."""

    source: Source
    urls: tuple[str, ...]
    reasons: dict[str, str] = field(default_factory=dict)
    done: int = 0
    started: float | None = None
    finished: bool = False


def fetch(
    sources: Sequence[Source],
    store: Store,
    mirrors: Mirrors,
    *,
    jobs: int = 4,
    offline: bool = False,
    progress: bool | None = None,
    limits: Limits = Limits(),  # noqa: B008  # frozen
) -> dict[str, Path]:
    """Bring every source into the store, and return the paths of the entries by SHA-256.

    What the store has is hashed anew; a damaged entry is named and downloaded again. ``jobs`` is how
    many files are downloaded at once. ``offline`` allows file:// URLs only. ``progress`` draws bars
    (True) or prints lines (False); None decides by whether a person watches. Ctrl-C and a kill leave
    partial files, which the next call resumes.

    Raises DownloadError (all that is missing at once), IntegrityError (a damaged entry while offline),
    StoreError (a full disk, say), and UsageError (sources that contradict each other).
    """
    wanted = _distinct(sources)
    entries, damaged = _held(wanted, store, jobs)
    if offline and damaged:
        raise IntegrityError("\n".join(e.message for e in damaged), hint="Run it again with the network on.")
    for damage in damaged:
        log.warn(damage.message)
    todo = [_job(source, mirrors, offline) for source in wanted if source.sha256 not in entries]
    if todo:
        entries |= _Downloads(todo, store, limits, jobs).run(_progress(todo, progress))
    failed = [job for job in todo if job.source.sha256 not in entries]
    if failed:
        missing = [Missing(job.source, tuple(job.reasons.items())) for job in failed]
        raise DownloadError(missing, len(wanted), OFFLINE_HINT if offline else HINT)
    return {source.sha256: entries[source.sha256] for source in wanted}


def _distinct(sources: Sequence[Source]) -> list[Source]:
    """Unite the sources that are the same file; raises UsageError where they disagree on its size."""
    by_sum: dict[str, Source] = {}
    for source in sources:
        first = by_sum.setdefault(source.sha256, source)
        if first.size != source.size:
            raise UsageError(
                f"{first.name} and {source.name} are pinned with the same SHA-256, "
                f"but with {first.size} and {source.size} bytes."
            )
        urls = tuple(dict.fromkeys((*first.urls, *source.urls)))
        by_sum[source.sha256] = msgspec.structs.replace(first, urls=urls)
    return list(by_sum.values())


def _held(sources: Sequence[Source], store: Store, jobs: int) -> tuple[dict[str, Path], list[IntegrityError]]:
    """Verify what the store holds: return the good entries, and what was damaged."""

    def look(source: Source) -> Path | IntegrityError | None:
        try:
            return store.get(source)
        except IntegrityError as e:
            return e

    with ThreadPoolExecutor(max(1, jobs)) as pool:
        found = dict(zip((source.sha256 for source in sources), pool.map(look, sources), strict=True))
    entries = {sha256: entry for sha256, entry in found.items() if isinstance(entry, Path)}
    return entries, [entry for entry in found.values() if isinstance(entry, IntegrityError)]


def _job(source: Source, mirrors: Mirrors, offline: bool) -> _Job:
    job = _Job(source, ())
    urls: dict[str, None] = {}
    for url in source.urls:
        try:
            for resolved in mirrors.resolve(url):
                urlsplit(resolved)
                urls[resolved] = None
        except ValueError as e:
            job.reasons[url] = f"is no URL: {e}"
        except NoMirrorError as e:
            job.reasons[url] = f"{e.message} {e.hint or ''}".rstrip()
    if offline:
        job.reasons |= {url: "the network is off" for url in urls if not url.startswith("file:")}
        urls = {url: None for url in urls if url.startswith("file:")}
    job.urls = tuple(urls)
    return job


class _Downloads:
    """The downloads of one call: worker threads that take jobs, and the main thread that watches.

    The threads are daemons, so that one that waits for a dead server does not hold up Ctrl-C.
    """

    def __init__(self, jobs: Sequence[_Job], store: Store, limits: Limits, workers: int) -> None:
        self._jobs = jobs
        self._store = store
        self._limits = limits
        self._transport = Transport(limits, workers)
        self._workers = max(1, workers)
        self._stop = threading.Event()
        self._unreachable: set[str] = set()
        self._todo: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[_Job, Path | BaseException | None]] = queue.SimpleQueue()
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def run(self, progress: _Progress) -> dict[str, Path]:
        """Download, and return the new entries by SHA-256; the jobs say why others are missing.

        Raises what kept a worker from going on: StoreError, for one.
        """
        for job in self._jobs:
            self._todo.put(job)
        threads = [
            threading.Thread(target=self._work, daemon=True, name=f"fetch-{number}")
            for number in range(min(self._workers, len(self._jobs)))
        ]
        for thread in threads:
            thread.start()
        try:
            return self._watch(progress)
        finally:
            self._stop.set()
            self._transport.abort()
            deadline = time.monotonic() + _PATIENCE
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
            progress.close()

    def _watch(self, progress: _Progress) -> dict[str, Path]:
        entries: dict[str, Path] = {}
        pending = len(self._jobs)
        while pending:
            try:
                job, result = self._results.get(timeout=_DRAW_EVERY)
            except queue.Empty:
                pass
            else:
                pending -= 1
                if isinstance(result, BaseException):
                    raise result
                if result is not None:
                    entries[job.source.sha256] = result
                    progress.fetched(job)
            # Printed here rather than by the workers, as indentation belongs to the main thread.
            while not self._lines.empty():
                log.warn(self._lines.get())
            progress.draw()
        return entries

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                job = self._todo.get_nowait()
            except queue.Empty:
                return
            result: Path | BaseException | None
            job.started = time.monotonic()
            try:
                result = self._download(job)
            except BaseException as e:  # handed to the main thread, which raises it
                result = e
            job.finished = True
            self._results.put((job, result))

    def _download(self, job: _Job) -> Path | None:
        """Download one file; None where no URL gave it."""
        if not job.urls:
            return None
        source = job.source
        with self._store.resume(source.sha256, source.name, self._stop.is_set) as writer:
            if writer.entry is not None:  # another process was faster
                job.done = source.size
                return writer.entry
            if self._complete(job, writer) or self._rounds(job, writer):
                return writer.commit(source.sha256)
        return None

    def _complete(self, job: _Job, writer: Writer) -> bool:
        """Whether an earlier run got all of the file but did not live to commit it."""
        source = job.source
        if writer.size == source.size and writer.sha256 == source.sha256:
            return True
        if writer.size >= source.size:
            writer.restart()
        return False

    def _rounds(self, job: _Job, writer: Writer) -> bool:
        """Try the URLs in order, round by round, until one gives the file or all have failed for good."""
        urls = list(job.urls)
        best, fruitless, pause = writer.size, 0, 0.0
        while urls and fruitless < self._limits.rounds:
            self._pause(pause)
            pause = self._limits.backoff * 2**fruitless
            for url in sorted(urls, key=lambda url: urlsplit(url).netloc in self._unreachable):
                try:
                    self._attempt(job, url, writer)
                except RefusedError as e:
                    urls.remove(url)
                    self._failed(job, url, e)
                except TransientError as e:
                    pause = max(pause, e.after)
                    if e.unreachable:
                        self._unreachable.add(urlsplit(url).netloc)
                    self._failed(job, url, e)
                else:
                    self._unreachable.discard(urlsplit(url).netloc)
                    return True
            # A line that breaks now and then is no reason to give up on a big file; one that never gets
            # past its high-water mark is.
            fruitless = 0 if writer.size >= best + _WORTHWHILE else fruitless + 1
            best = max(best, writer.size)
        return False

    def _attempt(self, job: _Job, url: str, writer: Writer) -> None:
        """Try one URL once, and a second time from the start where continuing a partial file failed.

        The partial may be to blame: it may come from another server or have been damaged on disk.
        """
        resumed = writer.size > 0
        try:
            self._copy(job, url, writer)
        except (RangeError, WrongBytesError):
            if not resumed:
                raise
            writer.restart()
            self._copy(job, url, writer)

    def _copy(self, job: _Job, url: str, writer: Writer) -> None:
        source = job.source
        job.done = writer.size
        with self._transport.open(url, writer.size, source.size) as body:
            if body.offset != writer.size:
                writer.restart()
            mark, since = writer.size, time.monotonic()
            while writer.size < source.size:
                # Never more than is left: that cuts a server off that sends more than the pinned size.
                block = body.read(min(BLOCK, source.size - writer.size))
                if self._stop.is_set():
                    raise CancelledError("The downloads were stopped.")
                if not block:
                    raise TransientError(f"ended after {writer.size} of {source.size} bytes")
                writer.write(block)
                job.done = writer.size
                now = time.monotonic()
                if now - since > self._limits.read:
                    if writer.size - mark < self._limits.slowest * self._limits.read:
                        raise TransientError(f"sends less than {self._limits.slowest} bytes a second")
                    mark, since = writer.size, now
        if writer.sha256 != source.sha256:
            found = writer.sha256
            writer.restart()
            raise WrongBytesError(f"sends other bytes, with the SHA-256 {found}")

    def _failed(self, job: _Job, url: str, error: HostError) -> None:
        if self._stop.is_set():
            raise CancelledError("The downloads were stopped.")
        if job.reasons.get(url) != error.message:
            self._lines.put(f"{job.source.name}: {shown(url)}: {error.message}")
        job.reasons[url] = error.message

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise CancelledError("The downloads were stopped.")


class _Progress(Protocol):
    """What draws the downloads' progress; only the main thread calls it."""

    def fetched(self, job: _Job) -> None:
        """A file is in the store."""

    def draw(self) -> None:
        """Show how things stand."""

    def close(self) -> None:
        """No more will come."""


def _progress(jobs: Sequence[_Job], bars: bool | None) -> _Progress:
    return _Bars(jobs) if bars or (bars is None and log.is_terminal()) else _Lines(jobs)


class _Lines:
    """Progress for logs: a line for each of a few files, one now and then, and one in total."""

    def __init__(self, jobs: Sequence[_Job]) -> None:
        self._jobs = jobs
        self._fetched: list[_Job] = []
        self._start = self._last = time.monotonic()

    def fetched(self, job: _Job) -> None:
        self._fetched.append(job)
        if len(self._jobs) > _FEW:
            return  # an image's hundreds of packages would bury the rest of the log
        took = log.duration(time.monotonic() - (job.started or 0))
        log.info(f"fetched {job.source.name} ({log.size(job.source.size)}) in {took}")

    def draw(self) -> None:
        if time.monotonic() - self._last < _LINE_EVERY:
            return
        self._last = time.monotonic()
        done, total = sum(job.done for job in self._jobs), sum(job.source.size for job in self._jobs)
        finished = sum(job.finished for job in self._jobs)
        log.info(f"{log.size(done)} of {log.size(total)}, {finished} of {len(self._jobs)} files")

    def close(self) -> None:
        total = log.size(sum(job.source.size for job in self._fetched))
        took = log.duration(time.monotonic() - self._start)
        log.info(f"{len(self._fetched)} of {len(self._jobs)} files fetched ({total}) in {took}")


class _Bars:
    """Progress for people: a bar for each file on its way, and one in total."""

    def __init__(self, jobs: Sequence[_Job]) -> None:
        self._jobs = jobs
        self._bars: dict[str, tqdm[Never]] = {}
        self._total = self._bar("total", sum(job.source.size for job in jobs))

    @staticmethod
    def _bar(name: str, total: int) -> tqdm[Never]:
        return tqdm(desc=name, total=total, unit="B", unit_scale=True, unit_divisor=1024, leave=False)

    def fetched(self, job: _Job) -> None:  # noqa: ARG002  # the bar has said it
        self.draw()

    def draw(self) -> None:
        for job in self._jobs:
            name = job.source.name
            if job.finished:
                if bar := self._bars.pop(name, None):
                    bar.close()
            elif job.started is not None:
                bar = self._bars.get(name) or self._bars.setdefault(name, self._bar(name, job.source.size))
                bar.n = job.done
                bar.refresh()
        self._total.n = sum(job.done for job in self._jobs)
        self._total.refresh()

    def close(self) -> None:
        for bar in (*self._bars.values(), self._total):
            bar.close()
