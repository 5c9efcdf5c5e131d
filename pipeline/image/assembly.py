"""From a lock to an image that is ready for use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import filelock

from pipeline import files, log
from pipeline.errors import IntegrityError
from pipeline.fetch import DownloadError, fetch
from pipeline.image import arch, debian, tree
from pipeline.image.definition import ArchDefinition, DebianDefinition, Definition, read_definition
from pipeline.image.lock import ArchLock, DebianLock, Lock, LockedDeb, lock_path, read_lock
from pipeline.image.oci import DockerImage
from pipeline.image.proof import prove
from pipeline.image.rootfs import Rootfs, pack, unpack
from pipeline.mirrors import Mirrors
from pipeline.scratch import scratch
from pipeline.source import Source
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
    def kernel(self) -> LockedDeb | None:
        """The package with the dom0 kernel of the smoke boots, where the image has one."""
        lock = self.lock
        if isinstance(lock, ArchLock):
            definition = read_definition(self.name)
            assert isinstance(definition, ArchDefinition)
            if definition.kernel_of is None:
                return None
            lock = read_lock(definition.kernel_of)
        return lock.kernel if isinstance(lock, DebianLock) else None

    @property
    def sources(self) -> list[Source]:
        """All that the image is made of, and the kernel, as things to fetch."""
        return [*self.lock.sources, *([self.kernel.source] if self.kernel else [])]

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

    @property
    def packs_itself(self) -> bool:
        """Whether the unpacked root file system is all that its tar is made of, which then is not kept."""
        return isinstance(self.lock, ArchLock) and os.geteuid() == 0

    def layer(self) -> Path:
        """Return the root file system's tar, verified, and made of the tree where that is all there is.

        Raises IntegrityError where it is damaged or gone.
        """
        tar = self.store.find(self.lock.rootfs_sha256, f"image {self.name}")
        if tar is not None:
            return tar
        if not (self.packs_itself and self.folder.is_dir()):
            raise IntegrityError(
                f"The tar of image {self.name} is not in the store.", hint=f"./inv image {self.name}"
            )
        self.verify()
        with log.step(f"Packing image {self.name}"), self.store.writer() as writer:
            pack(self.root, self.lock.source_date_epoch, writer.write)
            try:
                return writer.commit(self.lock.rootfs_sha256)
            except IntegrityError as e:
                self._remove()
                raise IntegrityError(
                    f"Image {self.name} was damaged on this host and is removed: owners or permissions.",
                    hint="The next run makes it again.",
                ) from e

    def verify(self) -> None:
        """Compare every file of the unpacked root with the lock.

        Raises IntegrityError naming the files; the damaged copy is removed, so that the next use
        makes a new one.
        """
        kept = self.folder / "manifest"
        found = tree.manifest(self.root)
        if tree.manifest_sha256(found) == self.lock.tree_sha256:
            if not kept.exists():
                files.write_text(kept, found)
            return
        expected = kept.read_text(encoding="utf-8", errors="replace") if kept.exists() else found
        paths = tree.differences(expected, found)[:5] or ["its manifest"]
        self._remove()
        raise IntegrityError(
            f"Image {self.name} was damaged on this host and is removed: /{', /'.join(paths)}.",
            hint="The next run makes it again.",
        )

    def _remove(self) -> None:
        # Moved away first: a removal that is cut short must not leave half an image under its name.
        with scratch(self.store.root / "scratch", "damaged") as folder:
            self.folder.rename(folder / "image")


def prepare(name: str, store: Store, mirrors: Mirrors, *, jobs: int = 4) -> Image:
    """Return image ``name``, ready for use: nothing is done where it is in place already.

    Raises UsageError where it has no lock, IntegrityError where its bytes are not the locked ones,
    ProofError where it does not do what its definition promises, and HostError.
    """
    image = Image(name, read_lock(name), store)
    with _alone(image):
        if not image.folder.is_dir() or not (image.packs_itself or _has_tar(image)):
            with log.step(f"Image {name}"):
                _make_ready(image, mirrors, jobs)
    return image


def _alone(image: Image) -> filelock.FileLock:
    """Keep other processes from making the same image."""
    images = image.folder.parent
    images.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(images / f"{image.folder.name}.lock")


def _has_tar(image: Image) -> bool:
    return image.store.path(image.lock.rootfs_sha256).is_file()


def _make_ready(image: Image, mirrors: Mirrors, jobs: int) -> None:
    """Assemble and unpack; the folder gets its name only when it is complete, as locked, and proven."""
    with scratch(image.store.root / "scratch", "image") as folder:
        tar = _stored(image)
        if tar is None:
            is_tree = _assemble_into(image, mirrors, folder, jobs)
        else:
            unpack(tar, folder / "image")
            is_tree = False
        # A tree of which the locked tar can be made is the locked one; an unpacked one has yet to show it.
        if not is_tree:
            _check_unpacked(image, folder / "image")
        prove(image.name, read_definition(image.name), folder / "image" / "root", image.store)
        _place(image, folder)


def _stored(image: Image) -> Path | None:
    try:
        return image.store.find(image.lock.rootfs_sha256, f"image {image.name}")
    except IntegrityError as e:
        log.warn(e.message)
        return None


def _assemble_into(image: Image, mirrors: Mirrors, folder: Path, jobs: int) -> bool:
    """Assemble an image in ``folder``/image; says whether that is the tree that was put together itself."""
    (folder / "work").mkdir()
    with log.step("Assembling"):
        rootfs = assemble(image, mirrors, folder / "work", jobs=jobs)
    is_tree = rootfs.is_tree
    try:
        rootfs.settle(image.store, folder / "image", image.lock.rootfs_sha256)
    except IntegrityError as e:
        raise IntegrityError(
            f"Image {image.name} came out differently from its lock. {e.message}",
            hint="This host's tools behave differently from those that made the lock: "
            f"./inv image {image.name} --verify says in which files.",
        ) from e
    return is_tree


def _check_unpacked(image: Image, folder: Path) -> None:
    manifest = tree.manifest(folder / "root")
    if tree.manifest_sha256(manifest) != image.lock.tree_sha256:
        raise IntegrityError(f"Image {image.name} did not unpack to the files of its lock.")
    (folder / "manifest").write_text(manifest, encoding="utf-8")


def _place(image: Image, folder: Path) -> None:
    """Give a finished image in ``folder`` its name, durably, in the place of one that lacks its tar."""
    files.sync_tree(folder / "image")
    if image.folder.is_dir():
        image.folder.rename(folder / "old")
    (folder / "image").rename(image.folder)
    files.sync_folder(image.folder.parent)


def adopt(image: Image, folder: Path) -> None:
    """Put an image in place that was just made in ``folder``/image, and of which the lock was made."""
    with _alone(image):
        _place(image, folder)


def assemble(image: Image, mirrors: Mirrors, folder: Path, *, jobs: int) -> Rootfs:
    """Fetch an image's packages and put it together in ``folder``, whether it is the locked one or not."""
    definition = read_definition(image.name)
    found = obtain(definition, image.lock, image.store, mirrors, jobs=jobs)
    return from_files(definition, image.lock, found, folder)


def obtain(
    definition: Definition, lock: Lock, store: Store, mirrors: Mirrors, *, jobs: int
) -> dict[str, Path]:
    """Bring all that an image is assembled from into the store; returns the entries by SHA-256."""
    try:
        if isinstance(lock, ArchLock):
            # The few first: where the archive does not answer, the message need not name every package.
            fetch([database.source for database in lock.databases], store, mirrors, jobs=jobs)
        return fetch(lock.sources, store, mirrors, jobs=jobs)
    except DownloadError as e:
        if isinstance(definition, ArchDefinition):
            e.hint = "\n".join(filter(None, (e.hint, definition.way_out)))
        raise


def from_files(definition: Definition, lock: Lock, found: Mapping[str, Path], folder: Path) -> Rootfs:
    """Put together in ``folder`` what a lock is of, from files that were fetched."""
    if isinstance(lock, ArchLock):
        return arch.assemble(lock, found, folder)
    assert isinstance(definition, DebianDefinition)
    return Rootfs(debian.assemble(definition, lock.packages, found, lock.source_date_epoch, folder))
