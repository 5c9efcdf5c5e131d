"""Puts finished packages into a channel's repository."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from pipeline import evidence, files, log, records, signing
from pipeline import package as packages
from pipeline.errors import FailureError, IntegrityError, UsageError
from pipeline.evidence import UnprovenError
from pipeline.package import Package
from pipeline.repository import database
from pipeline.repository.channel import INDEX, Channel, Index, Place, Published
from pipeline.repository.sync import sync
from pipeline.run import run
from pipeline.scratch import scratch
from pipeline.settings import Settings


class RefusedError(FailureError):
    """Clients could not follow: a downgrade, or other bytes under a version that they may have."""


@dataclass(frozen=True)
class Policy:
    """How to publish.

    ``key`` is the fingerprint of the key that signs, none where it is empty. Each package's newest ``keep``
    versions stay, and all that was in the database less than ``grace`` ago.
    """

    key: str = ""
    keep: int = 3
    grace: timedelta = timedelta(days=1)


@dataclass(frozen=True)
class Offer:
    """A package file to publish, and what is known of it."""

    path: Path
    package: Package
    sha256: str
    evidence: dict[str, str]
    unproven: bool


def offers(hashes: Mapping[Path, str], folder: Path, *, unproven: bool) -> list[Offer]:
    """Look at package files, given with their SHA-256, and at their evidence in ``folder``.

    Raises UnprovenError for packages without passing evidence, unless ``unproven`` allows them.
    """
    by_name = {path.name: sha256 for path, sha256 in hashes.items()}
    try:
        found = {str(e.kind): e.summary for e in evidence.require(folder, by_name)}
    except UnprovenError as e:
        if not unproven:
            raise UnprovenError(
                e.message, hint=f"{e.hint or ''} --allow-unproven publishes them all the same, marked so."
            ) from e
        log.warn(f"{e.message} It will be marked as unproven.")
        return [Offer(path, packages.read(path), sha, {}, True) for path, sha in hashes.items()]
    return [Offer(path, packages.read(path), sha, found, False) for path, sha in hashes.items()]


def command(
    settings: Settings,
    paths: Sequence[Path],
    results: Path,
    channel: str,
    *,
    unproven: bool,
    target: str = "",
) -> None:
    """Publish package files with their evidence in ``results``, and sync to ``target`` where it is given.

    Prints the channel's folder. Raises what `offers`, `publish` and `sync` do.
    """
    place = Place(settings.repository_folder, Channel.parse(channel))
    if (paths[0].parent / "evidence").is_dir():
        results = paths[0].parent
    hashes = {path: files.sha256(path) for path in paths}
    wanted = settings.repository
    policy = Policy(settings.signing_key, wanted.keep, timedelta(hours=wanted.grace))
    publish(place, offers(hashes, results, unproven=unproven), policy)
    if not settings.signing_key:
        log.warn("The repository is not signed: no signing_key is set.")
    if target:
        sync(place, target)
    sys.stdout.write(f"{place.folder}\n")


def publish(place: Place, offered: Sequence[Offer], policy: Policy) -> Index:
    """Publish packages and return what the repository holds now.

    Waits for another publisher. What is published already changes nothing. Raises RefusedError.
    """
    names = [offer.package.name for offer in offered]
    for name in {n for n in names if names.count(n) > 1}:
        raise UsageError(f"Two of the packages are called {name}.")
    with place.locked():
        now = evidence.now()
        old = place.read()
        kept = old.packages if old else ()
        _refuse(kept, offered)
        for offer in offered:
            _place(place, offer, policy.key)
        new = _next(place, old, offered, policy, now)
        if old is not None and (old.packages, old.key) == (new.packages, new.key):
            log.info(f"{place.channel.repository}: these packages are published already")
            new = old
        else:
            _write_generation(place, new, old)
            log.info(f"{place.channel.repository}: generation {new.generation} is published")
        _sweep(place, new, policy)
    return new


def _refuse(kept: Sequence[Published], offered: Sequence[Offer]) -> None:
    for offer in offered:
        name, version = offer.package.name, offer.package.version
        for package in (p for p in kept if p.name == name):
            order = vercmp(version, package.version)
            if order < 0 and package.left is None:
                raise RefusedError(
                    f"{name} {package.version} is published, and {version} is older.",
                    hint="Clients do not go back to an older version; raise the release's revision.",
                )
            if order == 0 and package.sha256 != offer.sha256:
                raise RefusedError(
                    f"{name} {version} was published with other bytes: SHA-256 {package.sha256}.",
                    hint="Clients that have it would not see a change; raise the release's revision.",
                )


def vercmp(first: str, second: str) -> int:
    """Compare versions by pacman's own vercmp(8): below 0 where the first is older, 0 where they are one."""
    return int(run(["vercmp", first, second]).output)


def _place(place: Place, offer: Offer, key: str) -> None:
    """Copy a package and its signature into the channel's folder; what is in place stays as it is."""
    target = place.folder / offer.path.name
    if not target.is_file() or files.sha256(target) != offer.sha256:
        digest = hashlib.sha256()
        with offer.path.open("rb") as source, files.replacing(target) as file:
            while block := source.read(1 << 20):
                digest.update(block)
                file.write(block)
            if digest.hexdigest() != offer.sha256:
                raise IntegrityError(f"{offer.path} has changed: its SHA-256 is not {offer.sha256}.")
    if key:
        _sign(target, offer.path.with_name(f"{offer.path.name}.sig"), key)


def _sign(target: Path, brought: Path, key: str) -> None:
    signature = target.with_name(f"{target.name}.sig")
    with signing.keyring(own=key) as keys:
        if keys.verify(target, signature).status is signing.Status.GOOD:
            return
        if keys.verify(target, brought).status is signing.Status.GOOD:
            files.write_bytes(signature, brought.read_bytes())
            return
    signing.sign(target, key)


def _next(place: Place, old: Index | None, offered: Sequence[Offer], policy: Policy, now: datetime) -> Index:
    """Work out what the repository holds next."""
    fresh = {offer.package.name: _published(offer) for offer in offered}
    result = []
    for package in old.packages if old else ():
        replacement = fresh.get(package.name)
        if replacement is None:
            result.append(package)
        elif replacement.version != package.version:
            result.append(package if package.left else msgspec.structs.replace(package, left=now))
        elif package.left is None and not package.unproven:
            # What was proven once stays so: the evidence was about these bytes.
            fresh[package.name] = package
    everything = (*result, *fresh.values())
    alive = tuple(p for p in everything if p.left is None or _wanted(p, everything, policy, now))
    return Index(
        repository=place.channel.repository,
        generation=old.generation + 1 if old else 1,
        published=now,
        key=policy.key,
        packages=tuple(sorted(alive, key=lambda p: (p.name, p.left is not None, p.file))),
    )


def _published(offer: Offer) -> Published:
    return Published(
        file=offer.path.name,
        name=offer.package.name,
        version=offer.package.version,
        size=offer.path.stat().st_size,
        sha256=offer.sha256,
        unproven=offer.unproven,
        evidence=offer.evidence,
    )


def _wanted(package: Published, everything: Sequence[Published], policy: Policy, now: datetime) -> bool:
    """Whether a package that left the database must stay in the folder."""
    assert package.left is not None
    if now - package.left < policy.grace:
        return True
    others = (p for p in everything if p.name == package.name)
    return sum(vercmp(p.version, package.version) > 0 for p in others) < policy.keep


def _write_generation(place: Place, new: Index, old: Index | None) -> None:
    entries = []
    for package in new.offered.values():
        path = place.folder / package.file
        if new.key:
            _sign(path, path, new.key)  # what was published before there was a key
        else:
            path.with_name(f"{path.name}.sig").unlink(missing_ok=True)
        entries.append(database.entry(packages.read(path), path, package.sha256))
    generations = place.folder / "generations"
    with scratch(place.folder.parent, ".new") as temporary:
        folder = temporary / "generation"
        folder.mkdir()
        for suffix, with_files in (("db", False), ("files", True)):
            path = folder / f"{new.repository}.{suffix}"
            files.write_bytes(path, database.render(entries, with_files=with_files))
            if new.key:
                signing.sign(path, new.key)
        files.write_bytes(folder / INDEX, records.encode(new))
        _set_times(folder, place, new, old)
        files.sync_tree(folder)
        target = generations / str(new.generation)
        generations.mkdir(exist_ok=True)
        if target.exists():
            shutil.rmtree(target)  # left by a publisher that was killed before its switch
        folder.rename(target)
        files.sync_folder(generations)
    place.switch(new.generation)


def _set_times(folder: Path, place: Place, new: Index, old: Index | None) -> None:
    # Clients ask for databases newer than theirs, by whole seconds: two of one second would look alike.
    mtime = new.published.timestamp()
    if old is not None:
        before = (place.folder / "current" / f"{old.repository}.db").stat().st_mtime
        mtime = max(mtime, int(before) + 1)
    for path in folder.iterdir():
        os.utime(path, (mtime, mtime))


def _sweep(place: Place, index: Index, policy: Policy) -> None:
    """Remove what nobody can be fetching any more: packages out of the record, generations out of use."""
    known = {package.file for package in index.packages}
    limit = time.time() - policy.grace.total_seconds()
    for path in place.folder.glob("*.pkg.tar.*"):
        if path.name.removesuffix(".sig") not in known and path.stat().st_ctime <= limit:
            path.unlink()
    folders = sorted((place.folder / "generations").iterdir(), key=lambda p: int(p.name))
    for path, successor in itertools.pairwise(folders):
        # It went out of use when its successor came.
        if int(path.name) < index.generation and (successor / INDEX).stat().st_ctime <= limit:
            shutil.rmtree(path)
