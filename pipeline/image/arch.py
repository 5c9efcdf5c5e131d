"""Arch root file systems: resolved and assembled by pacman, from a day of the Arch Linux Archive."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline import files, log, signing
from pipeline.errors import CommandError, HostError, IntegrityError, UsageError
from pipeline.fetch import fetch
from pipeline.image import archive
from pipeline.image.archive import ArchiveError, Entry
from pipeline.image.definition import ArchDefinition
from pipeline.image.lock import ArchLock, LockedDatabase, LockedPackage, expand
from pipeline.image.rootfs import Rootfs, pack
from pipeline.mirrors import Mirrors
from pipeline.run import run
from pipeline.scratch import scratch
from pipeline.signing import Keyring, Status
from pipeline.source import Source
from pipeline.store import Store
from pipeline.version import PROJECT

_SCRIPT = Path(__file__).with_name("arch.sh")
_KEYRINGS = (Path("/usr/share/pacman/keyrings"), Path("/usr/share/keyrings"))
"""Where Arch and Debian keep the keys of Arch's packagers."""

_ANSWER = "locked"
_FORMAT = f"{_ANSWER}\t%r\t%n\t%v"


@dataclass(frozen=True)
class Resolution:
    """What a snapshot holds for an image."""

    snapshot: str
    databases: tuple[LockedDatabase, ...]
    urls: tuple[str, ...]
    packages: tuple[LockedPackage, ...]

    @property
    def source_date_epoch(self) -> int:
        """The beginning of the snapshot's day."""
        return int(datetime.fromisoformat(self.snapshot).replace(tzinfo=UTC).timestamp())


def resolve(definition: ArchDefinition, store: Store, mirrors: Mirrors, *, jobs: int) -> Resolution:
    """Let pacman say which of a day's packages make up the image, and verify their signatures.

    Raises ArchiveError where the archive does not answer or has no such day, UsageError where pacman
    cannot do what the definition asks for, and IntegrityError for a bad signature.
    """
    snapshot = definition.snapshot
    databases = archive.fetch_databases(snapshot, definition.repositories, store, mirrors)
    paths = {d.repository: store.path(d.sha256) for d in databases}
    known = {name: archive.read_database(path, name) for name, path in paths.items()}
    urls = archive.package_urls(snapshot)
    with scratch(store.root / "scratch", "resolve") as folder:
        wanted = _Resolver(definition, folder, paths)
        candidates = [_entry(known, line) for line in wanted.candidates()]
        sources = [_source(urls, entry.locked("")) for entry in candidates]
        found = fetch(sources, store, mirrors, jobs=jobs)
        installed = wanted.installed({entry.file: found[entry.sha256] for entry in candidates})
    entries = [entry for entry in candidates if (entry.name, entry.version) in installed]
    log.info(f"{len(entries)} packages, {log.size(sum(e.size for e in entries))}, on {snapshot}")
    verdicts = _signatures(entries, urls, found, definition.keys, mirrors, jobs)
    packages = tuple(entry.locked(verdicts[entry.name]) for entry in entries)
    return Resolution(snapshot, databases, urls, tuple(sorted(packages, key=lambda p: p.name)))


def _source(urls: Sequence[str], package: LockedPackage) -> Source:
    places = tuple(expand(template, package) for template in urls)
    return Source(name=package.file, urls=places, size=package.size, sha256=package.sha256)


def _entry(known: Mapping[str, dict[str, Entry]], line: str) -> Entry:
    """Look up what pacman printed: repository, name and version, parted by tabs."""
    repository, name, version = line.split("\t")
    entry = known.get(repository, {}).get(name)
    if entry is None or entry.version != version:
        raise IntegrityError(f"{repository}'s database says nothing of {name} {version}, which pacman saw.")
    return entry


class _Resolver:
    """pacman, asked what installing a definition's packages and groups into an empty root comes to.

    It is asked twice. ``--print`` needs no package files, but leaves conflicts alone: it would name gcc
    beside the gcc-multilib that takes its place. So what it names is fetched, and then installed into a
    database without any files, for which libalpm settles conflicts as it always does.
    """

    def __init__(self, definition: ArchDefinition, folder: Path, databases: Mapping[str, Path]) -> None:
        self._folder = folder
        self._packages = definition.packages
        sync = folder / "db" / "sync"
        sync.mkdir(parents=True)
        for name, path in databases.items():
            shutil.copyfile(path, sync / f"{name}.db")
        for name in ("root", "packages"):
            (folder / name).mkdir()
        config = _configure(folder, list(databases))
        self._pacman: list[str | Path] = [
            *("pacman", "--root", folder / "root", "--dbpath", folder / "db", "--config", config),
            *("--cachedir", folder / "packages", "--gpgdir", "/nonexistent", "--hookdir", "/nonexistent"),
            *("--logfile", "/dev/null", "--noconfirm", "--color", "never"),
        ]

    def candidates(self) -> list[str]:
        """Return repository, name and version, parted by tabs, of all that may be installed."""
        said = self._ask([*self._pacman, "--sync", "--print", "--print-format", _FORMAT, *self._packages])
        mark = f"{_ANSWER}\t"
        return [line.removeprefix(mark) for line in said.splitlines() if line.startswith(mark)]

    def installed(self, files_by_name: Mapping[str, Path]) -> set[tuple[str, str]]:
        """Return the names and versions of what is really installed, given the candidates' files."""
        for name, path in files_by_name.items():
            files.link_or_copy(path, self._folder / "packages" / name)
        said = self._ask(
            [*_namespace(), *self._pacman, "--sync", "--dbonly", "--noprogressbar", *self._packages]
        )
        for line in said.splitlines():
            if line.startswith("warning: removing"):
                log.info(line.removeprefix("warning: "))
        lines = self._ask([*self._pacman, "--query"]).splitlines()
        return {(name, version) for name, _, version in (line.partition(" ") for line in lines)}

    def _ask(self, argv: Sequence[str | Path]) -> str:
        try:
            return run(argv, env={"PATH": os.environ["PATH"], "LC_ALL": "C"}).output
        except CommandError as e:
            raise UsageError("pacman cannot resolve the image's packages.", hint=e.hint) from e


def _configure(folder: Path, repositories: Sequence[str]) -> Path:
    """Write pacman.conf(5). Signatures do not count: every file is compared with the lock before."""
    lines = ["[options]", "Architecture = x86_64", "SigLevel = Never", "LocalFileSigLevel = Never"]
    for repository in repositories:
        # Never asked: all packages lie in the cache.
        lines += [f"[{repository}]", f"Server = file://{folder}/packages"]
    path = folder / "pacman.conf"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _signatures(
    entries: Sequence[Entry],
    urls: Sequence[str],
    found: Mapping[str, Path],
    own: str | None,
    mirrors: Mirrors,
    jobs: int,
) -> dict[str, str]:
    """Judge every package's signature, and return the words for the lock by package name.

    A key that has expired since is no error, as the hash is what counts from now on; bytes that the
    signature does not fit are. Raises IntegrityError naming the packages.
    """
    known, revoked = _keys(own)
    if not known:
        log.warn("This host has no keys of Arch's packagers (archlinux-keyring): no signature was verified.")
        return {entry.name: "not verified" for entry in entries}
    with signing.keyring(*known) as keys, ThreadPoolExecutor(jobs) as pool:
        statuses = list(pool.map(lambda e: _judge(e, urls, found[e.sha256], mirrors, keys, revoked), entries))
    bad = [entry.name for entry, status in zip(entries, statuses, strict=True) if status is Status.BAD]
    if bad:
        raise IntegrityError(f"Packages were changed after they were signed: {', '.join(sorted(bad))}.")
    counts = ", ".join(f"{count} {_word(status)}" for status, count in Counter(statuses).most_common())
    log.info(f"signatures: {counts}")
    return {entry.name: _word(status) for entry, status in zip(entries, statuses, strict=True)}


def _word(status: Status) -> str:
    """A verdict as it stands in a lock: ``good``, ``expired key``."""
    return status.name.lower().replace("_", " ")


def _judge(
    entry: Entry,
    urls: Sequence[str],
    path: Path,
    mirrors: Mirrors,
    keys: Keyring,
    revoked: frozenset[str],
) -> Status:
    signature = entry.signature
    if signature is None:
        places = [f"{url}.sig" for url in _source(urls, entry.locked("")).urls]
        try:
            signature = archive.download(places, mirrors, archive.SIGNATURE_LIMIT)
        except ArchiveError:
            return Status.MISSING
    detached = keys.home / f"{entry.sha256}.sig"
    detached.write_bytes(signature)
    verdict = keys.verify(path, detached)
    if verdict.key in revoked and verdict.status is not Status.BAD:
        return Status.REVOKED_KEY
    return verdict.status


def _keys(own: str | None) -> tuple[list[Path], frozenset[str]]:
    """The files of keys, of the project (``own``) and of this host, and the keys that Arch revoked."""
    host = [folder for folder in _KEYRINGS if (folder / "archlinux.gpg").is_file()][:1]
    lists = [folder / "archlinux-revoked" for folder in host]
    revoked = {word for path in lists if path.is_file() for word in path.read_text(encoding="ascii").split()}
    known = [PROJECT / own] if own else []
    return [*known, *(folder / "archlinux.gpg" for folder in host)], frozenset(revoked)


def check_lock(lock: ArchLock, found: Mapping[str, Path]) -> None:
    """Compare every package of a lock with the pinned databases; raises IntegrityError naming the first."""
    wanted = {f"{package.name}-{package.version}" for package in lock.packages}
    for database in lock.databases:
        entries = archive.read_database(found[database.sha256], database.repository, wanted)
        for package in lock.packages:
            if package.repository != database.repository:
                continue
            entry = entries.get(package.name)
            if entry is None:
                raise IntegrityError(
                    f"The lock has {package.name} {package.version}, and {database.source.name} has not."
                )
            expected = entry.locked(package.signature)
            for field in package.__struct_fields__:
                ours, theirs = getattr(package, field), getattr(expected, field)
                if ours != theirs:
                    raise IntegrityError(
                        f"The lock and {database.source.name} disagree on {package.name}: "
                        f"its {field} is {ours} in the one and {theirs} in the other."
                    )


def assemble(lock: ArchLock, found: Mapping[str, Path], folder: Path) -> Rootfs:
    """Make the root file system from exactly the locked packages, with no network.

    ``found`` maps a SHA-256 to its file. It comes out in ``folder``, which is empty before: as a tree to
    root, and as a tar to other users, who could neither read nor remove files of other owners.
    """
    check_lock(lock, found)
    (folder / "databases").mkdir()
    for database in lock.databases:
        shutil.copyfile(found[database.sha256], folder / "databases" / f"{database.repository}.db")
    (folder / "packages").mkdir()
    for package in lock.packages:
        files.link_or_copy(found[package.sha256], folder / "packages" / package.file)
    _configure(folder, [database.repository for database in lock.databases])
    targets = [f"{package.repository}/{package.name}" for package in lock.packages]
    (folder / "targets").write_text("\n".join(targets) + "\n", encoding="utf-8")
    log.info(f"{len(lock.packages)} packages, {log.size(sum(p.size for p in lock.packages))}, from the lock")
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC", "HOME": "/root"}
    lines: list[str] = []
    try:
        argv = ["bash", os.fspath(_SCRIPT), os.fspath(folder), str(lock.source_date_epoch)]
        run([*_namespace(), *argv], env=env, on_line=lines.append)
    except CommandError as e:
        raise HostError("pacman could not assemble the image.", hint="\n".join(lines[-30:])) from e
    _complaints(lines)
    installed = set((folder / "installed").read_text(encoding="utf-8").splitlines())
    wanted = {f"{package.name} {package.version}" for package in lock.packages}
    if installed != wanted:
        names = ", ".join(sorted(installed ^ wanted)[:5])
        raise IntegrityError(f"pacman did not install what the lock says: {names}.")
    if os.geteuid() == 0:
        return Rootfs(folder / "root", lock.source_date_epoch)
    return Rootfs(_pack_all(folder, lock.source_date_epoch))


def _pack_all(folder: Path, seconds: int) -> Path:
    """Make the tar of a tree that is other users', and remove the tree."""
    tar = folder / "rootfs.tar"
    with tar.open("wb") as file:
        pack(folder / "root", seconds, file.write, within=_namespace())
    run([*_namespace(), "rm", "-rf", folder / "root"])
    return tar


def _complaints(lines: Sequence[str]) -> None:
    """Show what pacman complained of, a scriptlet that failed for one, and the package it was busy with."""
    package = ""
    for line in lines:
        if match := re.fullmatch(r"installing (.+)\.\.\.", line):
            package = f"{match[1]}: "
        elif line.startswith("error: "):
            log.warn(f"{package}{line.removeprefix('error: ')}")


def _namespace() -> list[str]:
    """The command that gives another one namespaces of its own, in which it is root."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-auto", "--map-root-user"]
    return ["unshare", *user, "--mount", "--pid", "--fork", "--kill-child", "--net", "--ipc", "--uts", "--"]
