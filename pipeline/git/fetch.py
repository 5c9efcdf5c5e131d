"""Git sources into the store: from mirrors in order, verified, several repositories at once."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import msgspec

from pipeline import files, log, records
from pipeline.errors import CommandError, IntegrityError, PipelineError
from pipeline.fetch import HINT, OFFLINE_HINT, DownloadError, Missing
from pipeline.git.command import Git, unreadable
from pipeline.git.export import export
from pipeline.git.mirror import LacksCommitError, Mirror, locked
from pipeline.git.objects import DamagedMirrorError
from pipeline.mirrors import Mirrors
from pipeline.source import GitSource, Sha256
from pipeline.store import Store, StoreError
from pipeline.transport import RefusedError, TransientError, shown

_ROUNDS = 2
_BACKOFF = 1.0
_PATIENCE = 3.0
_DRAW_EVERY = 0.2


class ExportRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which tar a commit led to; ``git/exports/KEY.json`` in the store.

    ``verified`` lists the hashes of the tags and keys with which the commit's signature was seen good.
    """

    tar_sha256: Sha256
    verified: tuple[Sha256, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where git sources come from and go to.

    ``project`` is the folder that key files are counted from. ``clones`` are file:// URLs of local
    repositories, which are asked first. ``offline`` allows file:// URLs only. ``silence`` is how many
    seconds a transfer may make no progress.
    """

    store: Store
    mirrors: Mirrors
    project: Path
    clones: tuple[str, ...] = ()
    offline: bool = False
    silence: float = 60


def fetch(sources: Sequence[GitSource], place: Place, *, jobs: int = 4) -> dict[GitSource, Path]:
    """Bring git sources into the store, and return the paths of their tars.

    Raises DownloadError (all that is missing at once), ExportError (a commit that cannot be a source),
    IntegrityError (damage that no URL could mend), UsageError (a key file that does not hold the key),
    ToolMissingError and StoreError.
    """
    with GitFetch(sources, place, jobs=jobs) as downloads:
        entries, missing = downloads.wait()
    if missing:
        raise DownloadError(missing, len(sources), OFFLINE_HINT if place.offline else HINT)
    return entries


def adopt(source: GitSource, place: Place, tar: Path) -> None:
    """Take a tar in the store for the export of a commit, on the word of whoever vouches for its hash.

    A source whose tag must be signed is fetched all the same: the word does not stand for the signature.
    """
    if source.key is None:
        _Record(place, source).write(tar)


def noted(source: GitSource, place: Place) -> bool:
    """Whether the store has a note of an export; not whether that is still good."""
    return _Record(place, source).exists


class GitFetch:
    """Git sources on their way, in threads, while the main thread does something else.

    The threads are daemons, and leaving the context ends every git that they run.
    """

    def __init__(self, sources: Sequence[GitSource], place: Place, *, jobs: int) -> None:
        self._sources = list(dict.fromkeys(sources))
        self._git = Git(place.store.root, place.silence)
        self._place = place
        self._todo: queue.SimpleQueue[GitSource] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[GitSource, Path | Missing | BaseException]] = (
            queue.SimpleQueue()
        )
        self._lines: queue.SimpleQueue[tuple[str, bool]] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, daemon=True, name=f"git-{number}")
            for number in range(min(max(1, jobs), len(self._sources)))
        ]

    def __enter__(self) -> GitFetch:
        for source in self._sources:
            self._todo.put(source)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._git.stop.set()
        deadline = time.monotonic() + _PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def wait(self) -> tuple[dict[GitSource, Path], list[Missing]]:
        """Return the tars of those that could be had, and the others, in the order of the sources.

        Raises what kept a thread from going on.
        """
        found: dict[GitSource, Path | Missing] = {}
        while len(found) < len(self._sources):
            with contextlib.suppress(queue.Empty):
                source, result = self._results.get(timeout=_DRAW_EVERY)
                if isinstance(result, BaseException):
                    raise result
                found[source] = result
            # Printed here rather than by the threads, as indentation belongs to the main thread.
            while not self._lines.empty():
                text, warning = self._lines.get()
                (log.warn if warning else log.info)(text)
        in_order = [(source, found[source]) for source in self._sources]
        return (
            {source: result for source, result in in_order if isinstance(result, Path)},
            [result for _, result in in_order if isinstance(result, Missing)],
        )

    def _work(self) -> None:
        while not self._git.stop.is_set():
            try:
                source = self._todo.get_nowait()
            except queue.Empty:
                return
            try:
                result: Path | Missing | BaseException = self._obtain(source)
            except OSError as e:
                root = self._place.store.root
                result = StoreError(f"The store in {root} cannot be used: {e.strerror or e} ({e.filename}).")
            except BaseException as e:  # handed to the main thread, which raises it
                result = e
            self._results.put((source, result))

    def _obtain(self, source: GitSource) -> Path | Missing:
        record = _Record(self._place, source)
        found = self._held(record)
        if found is not None:
            return found
        with locked(self._git, source) as mirror:
            found = self._held(record)  # another process was faster
            if found is not None:
                return found
            start = time.monotonic()
            attempt = _Attempt(source, self._place, mirror, self._lines)
            tar = attempt.obtain()
            if tar is None:
                return Missing(source, tuple(attempt.reasons.items()))
            record.write(tar)
            size, took = log.size(tar.stat().st_size), log.duration(time.monotonic() - start)
            self._lines.put(
                (f"{source.name}: commit {source.commit[:12]} exported ({size}) in {took}", False)
            )
            return tar

    def _held(self, record: _Record) -> Path | None:
        try:
            return record.read()
        except IntegrityError as e:
            self._lines.put((f"{e.message} It is exported again.", True))
            return None


class _Record:
    """The note which tar a commit led to."""

    def __init__(self, place: Place, source: GitSource) -> None:
        self._store = place.store
        self._source = source
        key = _digest({"export": source.identity})
        self._path = place.store.root / "git" / "exports" / f"{key}.json"
        self._signature = ""
        if source.key_file is not None:
            with contextlib.suppress(OSError):
                text = (place.project / source.key_file).read_bytes()
                self._signature = _digest(
                    {"tag": source.tag, "key": source.key, "file": hashlib.sha256(text).hexdigest()}
                )

    @property
    def exists(self) -> bool:
        """Whether there is one."""
        return self._load() is not None

    def read(self) -> Path | None:
        """Return the verified tar if it is there, and its signature was seen good where one is wanted.

        Raises IntegrityError for a damaged tar, which is removed.
        """
        record = self._load()
        if record is None or (self._source.key is not None and self._signature not in record.verified):
            return None
        return self._store.find(record.tar_sha256, self._source.file_name)

    def write(self, tar: Path) -> None:
        """Note the tar, which the store has; where the source has a key, its signature was seen good."""
        before = self._load()
        verified = set(before.verified) if before else set()
        if self._source.key is not None:
            verified.add(self._signature)
        record = ExportRecord(tar_sha256=tar.name, verified=tuple(sorted(verified)))
        files.write_bytes(self._path, records.encode(record))

    def _load(self) -> ExportRecord | None:
        try:
            return records.decode(self._path.read_bytes(), ExportRecord)
        except (OSError, records.RecordError):
            return None


def _digest(inputs: dict[str, object]) -> str:
    return hashlib.sha256(msgspec.json.encode(inputs, order="sorted")).hexdigest()


class _Attempt:
    """One source, its locked mirror, and what became of its URLs."""

    def __init__(
        self,
        source: GitSource,
        place: Place,
        mirror: Mirror,
        lines: queue.SimpleQueue[tuple[str, bool]],
    ) -> None:
        self.reasons: dict[str, str] = {}
        self._source = source
        self._place = place
        self._mirror = mirror
        self._lines = lines

    def obtain(self) -> Path | None:
        """Return the source's tar, or None where no URL gave the commit.

        A damaged mirror is thrown away and fetched anew, once; raises DamagedMirrorError after that.
        """
        try:
            return self._from_mirror() or self._from_urls()
        except (DamagedMirrorError, CommandError) as e:
            message = e.message
            if isinstance(e, CommandError):
                message = f"The repository {self._mirror.folder} is damaged: {unreadable(e)}."
            self._lines.put((f"{message} It is fetched again.", True))
            self._mirror.discard()
        return self._from_urls()

    def _from_mirror(self) -> Path | None:
        if not self._mirror.has(self._source):
            return None
        try:
            return self._export()
        except RefusedError as e:
            # The tag that was fetched for another key; the URLs may have a better one by now.
            self._failed("the mirror in the store", e)
            return None

    def _export(self) -> Path:
        if self._source.key is not None:
            self._mirror.verify_tag(self._source, self._place.project)
        return export(self._mirror.objects, self._source, self._place.store)

    def _from_urls(self) -> Path | None:
        left = list(self._urls())
        for number in range(_ROUNDS):
            if number and left:
                time.sleep(_BACKOFF)
            for url in list(left):
                try:
                    self._mirror.fetch(url, self._source)
                    return self._export()
                except LacksCommitError as e:
                    left.remove(url)
                    if url not in self._place.clones:  # a folder of clones has more than this one repository
                        self._failed(url, e)
                except RefusedError as e:
                    left.remove(url)
                    self._failed(url, e)
                except TransientError as e:
                    if e.unreachable:
                        left.remove(url)
                    self._failed(url, e)
        return None

    def _urls(self) -> Iterator[str]:
        urls = dict.fromkeys(self._place.clones)
        for url in self._source.urls:
            urls |= dict.fromkeys(self._place.mirrors.resolve(url))
        for url in urls:
            if self._place.offline and not url.startswith("file:"):
                self.reasons[url] = "the network is off"
            else:
                yield url

    def _failed(self, url: str, error: PipelineError) -> None:
        if self.reasons.get(url) != shown(error.message):
            self._lines.put((f"{self._source.name}: {shown(url)}: {shown(error.message)}", True))
        self.reasons[url] = shown(error.message)


__all__ = ["ExportRecord", "GitFetch", "Place", "adopt", "fetch"]
