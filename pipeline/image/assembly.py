"""From a lock to an image that is ready for use, and from a definition to its lock."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock
import msgspec

from pipeline import files, log
from pipeline.definition import read_toml
from pipeline.errors import HostError, IntegrityError, UsageError
from pipeline.fetch import fetch
from pipeline.image import debian, tree
from pipeline.image.definition import (
    Definition,
    Lock,
    LockedPackage,
    definition_path,
    lock_path,
    read_definition,
    render_lock,
)
from pipeline.image.oci import DockerImage
from pipeline.mirrors import Mirrors
from pipeline.run import run
from pipeline.scratch import scratch
from pipeline.store import Store


@dataclass(frozen=True)
class Image:
    """An image whose bytes are those of its lock.

    ``root`` is the unpacked root file system (for bubblewrap and for reading files out of it).
    """

    name: str
    lock: Lock
    store: Store

    @property
    def id(self) -> str:
        """The docker image's id; it stands for the image's bytes everywhere."""
        return self.lock.image_id

    @property
    def lock_sha256(self) -> str:
        """The hash of the lock file as it is now."""
        return files.sha256(lock_path(self.name))

    @property
    def docker(self) -> DockerImage:
        """The image's docker form."""
        return DockerImage(self.lock.rootfs_sha256, self.lock.source_date_epoch)

    @property
    def folder(self) -> Path:
        """Where the unpacked image lives; the name binds it to its bytes."""
        return self.store.root / "images" / self.lock.rootfs_sha256

    @property
    def root(self) -> Path:
        """The unpacked root file system."""
        return self.folder / "root"

    def layer(self) -> Path:
        """Return the root file system's tar, verified; raises IntegrityError where it is damaged or gone."""
        tar = self.store.find(self.lock.rootfs_sha256, f"image {self.name}")
        if tar is None:
            raise IntegrityError(
                f"The tar of image {self.name} is not in the store.", hint=f"./inv image {self.name}"
            )
        return tar

    def verify(self) -> None:
        """Compare every file of the unpacked root with the lock.

        Raises IntegrityError naming the files; the damaged copy is removed, so that the next use
        unpacks a new one.
        """
        found = tree.manifest(self.root)
        if tree.manifest_sha256(found) == self.lock.tree_sha256:
            return
        try:
            expected = (self.folder / "manifest").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            expected = found
        paths = tree.differences(expected, found)[:5] or ["its manifest"]
        # Moved away first: a removal that is cut short must not leave half an image under its name.
        with scratch(self.store.root / "scratch", "damaged") as folder:
            self.folder.rename(folder / "image")
        raise IntegrityError(
            f"Image {self.name} was damaged on this host and is removed: /{', /'.join(paths)}.",
            hint="The next run unpacks it again.",
        )


def definition_sha256(definition: Definition) -> str:
    """Hash what of a definition reaches the image: comments and layout do not, nor does ``packaging``."""
    bare = msgspec.structs.replace(definition, packaging=None)
    return hashlib.sha256(msgspec.json.encode(bare, order="sorted")).hexdigest()


def read_lock(name: str) -> Lock:
    """Read an image's lock; raises UsageError where it is missing or was made from another definition."""
    definition = read_definition(name)
    path = lock_path(name)
    if not path.is_file():
        raise UsageError(
            f"Image {name} has no lock.", hint=f"./inv image.lock {name} makes one (it needs the network)."
        )
    lock = read_toml(path, Lock)
    if lock.definition_sha256 != definition_sha256(definition):
        raise UsageError(
            f"{definition_path(name)} has changed since {path.name} was made.",
            hint=f"./inv image.lock {name} makes a new one.",
        )
    return lock


def prepare(name: str, store: Store, mirrors: Mirrors, *, jobs: int = 4) -> Image:
    """Return image ``name``, ready for use: nothing is done where it is in place already."""
    image = Image(name, read_lock(name), store)
    (store.root / "images").mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(store.root / "images" / f"{image.lock.rootfs_sha256}.lock"):
        if not image.folder.is_dir():
            with log.step(f"Image {name}"):
                _unpack(image, _tar(image, mirrors, jobs))
    return image


def _tar(image: Image, mirrors: Mirrors, jobs: int) -> Path:
    try:
        found = image.store.find(image.lock.rootfs_sha256, f"image {image.name}")
    except IntegrityError as e:
        log.warn(e.message)
        found = None
    if found is not None:
        return found
    lock = image.lock
    debs = fetch([p.source for p in lock.packages], image.store, mirrors, jobs=jobs)
    definition = read_definition(image.name)
    with scratch(image.store.root / "scratch", "image") as folder, log.step("Assembling"):
        tar = debian.assemble(definition, lock.packages, debs, lock.source_date_epoch, folder)
        try:
            return image.store.add_file(tar, lock.rootfs_sha256)
        except IntegrityError as e:
            raise IntegrityError(
                f"Image {image.name} came out differently from its lock. {e.message}",
                hint="This host's mmdebstrap, apt or dpkg behaves differently from those that made the lock.",
            ) from e


def _unpack(image: Image, tar: Path) -> None:
    """Unpack the root file system; the folder gets its name only when it is complete and as locked."""
    with scratch(image.store.root / "scratch", "unpack") as folder, log.step("Unpacking"):
        manifest = _unpack_tree(tar, folder / "image")
        if tree.manifest_sha256(manifest) != image.lock.tree_sha256:
            raise IntegrityError(f"Image {image.name} did not unpack to the files of its lock.")
        files.sync_tree(folder / "image")
        (folder / "image").rename(image.folder)


def _unpack_tree(tar: Path, folder: Path) -> str:
    root = folder / "root"
    # mmdebstrap leaves /dev out with what is in it; bubblewrap mounts its own there.
    (root / "dev").mkdir(parents=True)
    for path in (folder, root, root / "dev"):
        path.chmod(0o755)  # whatever this process's umask is
    owner = "--same-owner" if os.geteuid() == 0 else "--no-same-owner"
    run(["tar", "--extract", "--preserve-permissions", "--numeric-owner", owner, "--file", tar], cwd=root)
    manifest = tree.manifest(root)
    (folder / "manifest").write_text(manifest, encoding="utf-8")
    return manifest


def make_lock(name: str, store: Store, mirrors: Mirrors, *, jobs: int = 4) -> Lock:
    """Resolve, fetch and assemble image ``name`` from today's suite, and write its lock."""
    definition = read_definition(name)
    found = _resolve(definition, store, mirrors)
    wanted: Sequence[LockedPackage] = [*found.packages, *([found.kernel] if found.kernel else [])]
    debs = fetch([p.source for p in wanted], store, mirrors, jobs=jobs)
    with scratch(store.root / "scratch", "lock") as folder, log.step(f"Assembling {name}"):
        tar = debian.assemble(definition, found.packages, debs, found.source_date_epoch, folder)
        entry = store.add_file(tar)
        manifest = _unpack_tree(entry, folder / "image")
        lock = Lock(
            definition_sha256=definition_sha256(definition),
            release_sha256=found.release_sha256,
            source_date_epoch=found.source_date_epoch,
            rootfs_sha256=entry.name,
            tree_sha256=tree.manifest_sha256(manifest),
            image_id=DockerImage(entry.name, found.source_date_epoch).id,
            packages=found.packages,
            kernel=found.kernel,
        )
    files.write_text(lock_path(name), render_lock(lock))
    return lock


def _resolve(definition: Definition, store: Store, mirrors: Mirrors) -> debian.Resolution:
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
