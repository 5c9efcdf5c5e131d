"""Takes a bundle in: nothing of it has a name on this machine before all of it is verified."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline import build as builds
from pipeline import evidence, files, log, seal, verify
from pipeline.build import Build
from pipeline.bundle import archive, requirements
from pipeline.bundle.manifest import BundleError, Manifest
from pipeline.download import download, is_url
from pipeline.errors import HostError, IntegrityError, UsageError
from pipeline.evidence import Evidence, Kind, UnprovenError
from pipeline.run import run
from pipeline.scratch import scratch
from pipeline.signing import Keyring, Signature, Status

_MAX_BUNDLE = 64 << 30
_MARGIN = 64 << 20


@dataclass(frozen=True)
class Trust:
    """Whose bundles are taken in: those that ``keys`` have signed.

    ``unknown_signer`` takes those that somebody else or nobody has signed, ``unproven`` those that lack
    passing evidence.
    """

    keys: Keyring
    unknown_signer: bool = False
    unproven: bool = False


@dataclass(frozen=True)
class Received:
    """A bundle on this machine, unpacked and verified in ``folder``."""

    folder: Path
    manifest: Manifest

    @property
    def build(self) -> Build:
        """The build that came; raises IntegrityError where its record is damaged."""
        return builds.read(self.folder / "build")


def receive(word: str, parent: Path, trust: Trust) -> Received:
    """Verify and unpack a bundle, given as a path, a URL or ``-``, below ``parent``.

    It goes to ``<parent>/<release>/<build id>/``. Raises BundleError, UnprovenError, AbsentError, UsageError,
    and HostError where this machine has no room for it.
    """
    with _opened(word, parent) as stream:
        reader = archive.Reader(stream)
        manifest = reader.manifest
        _check_signer(trust.keys.verify_bytes(reader.manifest_bytes, reader.signature, exact=True), trust)
        _check_machine(manifest)
        _check_space(manifest, parent)
        if manifest.unproven and not trust.unproven:
            raise UnprovenError(
                "The bundle says of itself that its packages are not proven.",
                hint="--allow-unproven takes it.",
            )
        with (
            log.step(f"Receiving {manifest.release}, build {manifest.build_id}"),
            scratch(parent, ".incoming") as folder,
        ):
            new = folder / "bundle"
            new.mkdir()
            with log.bytes_bar("receive", manifest.size) as on_bytes:
                reader.unpack(new, on_bytes)
            _check_papers(new / "build", manifest, trust)
            (new / archive.MANIFEST).write_bytes(reader.manifest_bytes)
            if reader.signature is not None:
                (new / archive.SIGNATURE).write_bytes(reader.signature)
            return Received(_place(new, parent / manifest.release / manifest.build_id, folder), manifest)


@contextlib.contextmanager
def _opened(word: str, parent: Path) -> Iterator[BinaryIO]:
    if word == "-":
        yield sys.stdin.buffer
    elif is_url(word):
        # To a file first, so that a broken connection goes on where it stopped.
        with scratch(parent, ".download") as folder:
            path = download(word, folder / "bundle", _MAX_BUNDLE)
            with path.open("rb") as file:
                yield file
    else:
        try:
            file = Path(word).expanduser().open("rb")
        except OSError as e:
            raise UsageError(f"{word} cannot be read: {e.strerror}.") from e
        with file:
            yield file


def _check_signer(signature: Signature, trust: Trust) -> None:
    if signature.status is Status.GOOD:
        log.info(f"signed by {signature.key}")
        return
    if trust.unknown_signer and signature.status in (Status.UNKNOWN_KEY, Status.MISSING):
        log.warn(f"The bundle is {signature}; it is taken all the same.")
        return
    hint = "--key FILE names the signer's public key, --unknown-signer takes it all the same."
    known = signature.status in (Status.UNKNOWN_KEY, Status.MISSING)
    raise BundleError(f"The bundle is {signature}.", hint=hint if known else None)


def _check_machine(manifest: Manifest) -> None:
    here = platform.machine()
    if manifest.architecture not in ("any", here):
        raise BundleError(f"The bundle is for {manifest.architecture}, and this machine is {here}.")


def _check_space(manifest: Manifest, parent: Path) -> None:
    parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(parent).free
    if free < manifest.size + _MARGIN:
        raise HostError(
            f"The bundle needs {log.size(manifest.size)}, and {parent} has {log.size(free)} left."
        )


def _check_papers(folder: Path, manifest: Manifest, trust: Trust) -> None:
    """See that the build in a bundle is the one that its manifest is about, and that its papers are too."""
    hashes = {entry.path.removeprefix("build/"): entry.sha256 for entry in manifest.within("build")}
    packages = {name: hashes[name] for name in manifest.packages}
    try:
        build = builds.read(folder)
    except IntegrityError as e:
        raise BundleError(f"The bundle's build.json is damaged: {e.message}") from e
    record = build.record
    about = (record.release, record.build_id, build.hashes)
    if about != (manifest.release, manifest.build_id, packages):
        raise BundleError("The bundle's build.json is about another build than its manifest.")
    rows = verify.papers(folder, packages)
    if trust.unproven:
        rows = (row for row in rows if row.item not in {f"evidence of {kind}" for kind in Kind})
    if wrong := verify.failures(rows):
        raise BundleError(f"The bundle's papers are not about its packages: {wrong}")
    _check_complete(folder, hashes)


def _check_complete(folder: Path, hashes: Mapping[str, str]) -> None:
    """See that all that a build ships is there, as its own list says, the AUR folder included."""
    try:
        listed = seal.read(folder)
    except seal.SealError as e:
        raise BundleError(f"The bundle is incomplete: {e.message}") from e
    there = {n: sha256 for n, sha256 in hashes.items() if n != seal.SUMS and not n.endswith(".sig")}
    wrong = {name for name, _ in listed.items() ^ there.items()}
    wrong |= {"aur/PKGBUILD", "aur/.SRCINFO"} - there.keys()
    if wrong:
        raise BundleError(f"The bundle is incomplete: {min(wrong)} is not what its {seal.SUMS} lists.")


def _place(new: Path, target: Path, folder: Path) -> Path:
    """Give a verified bundle its name, in the place of one that came before."""
    files.sync_tree(new)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(folder / "old")
    new.rename(target)
    return target


def adopt(received: Received, artifacts: Path, proofs: Path | None = None) -> Build:
    """Make a received build the newest one of its release here, in the place of one with its id.

    ``proofs`` is a folder with more evidence of its packages, each kind in its file. Raises UnprovenError for
    evidence of other bytes.
    """
    theirs = received.build
    folder = artifacts / theirs.record.release / theirs.record.build_id
    with scratch(folder.parent, ".adopted") as temporary:
        new = temporary / "build"
        shutil.copytree(received.folder / "build", new)
        for found in _evidence(proofs, theirs) if proofs is not None else ():
            evidence.write(new, found)
        files.sync_tree(new)
        if folder.exists():
            folder.rename(temporary / "old")
        new.rename(folder)
        files.replace_link(folder.parent / "latest", folder.name)
    return builds.read(folder)


def _evidence(folder: Path, build: Build) -> Iterator[Evidence]:
    """Give all evidence in a folder, which must be about a build's packages."""
    for kind in Kind:
        found = evidence.read_file(folder / f"{kind}.json", kind)
        if found is None:
            continue
        if not found.covers(build.hashes):
            raise UnprovenError(f"The evidence of {kind} in {folder} is about other bytes.")
        yield found


def install(received: Received) -> None:
    """Install a bundle's packages with pacman; raises UsageError for others than root, and HostError."""
    needed, packages = received.manifest.requires, received.build.packages
    if os.geteuid() != 0:
        command = ["sudo", "pacman", "--upgrade", *map(str, packages)]
        raise UsageError("Only root can install packages.", hint=shlex.join(command))
    glibc = platform.libc_ver()[1]
    if needed.glibc and requirements.order(glibc) < requirements.order(needed.glibc):
        raise HostError(f"The packages need glibc {needed.glibc}, and this machine has {glibc}.")
    with scratch(received.folder, ".install") as folder:
        # Without the signatures: pacman would judge them by its own keyring, which need not know the keys
        # that the receiver has named.
        for package in packages:
            (folder / package.name).hardlink_to(package)
        names = [folder / package.name for package in packages]
        run(["pacman", "--upgrade", "--noconfirm", *map(str, names)], on_line=log.info)
