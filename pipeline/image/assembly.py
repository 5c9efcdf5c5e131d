"""From a lock to an image that is ready for use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
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
from pipeline.mirrors import Mirrors
from pipeline.run import run
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


def prepare(name: str, store: Store, mirrors: Mirrors, *, jobs: int = 4) -> Image:
    """Return image ``name``, ready for use: nothing is done where it is in place already.

    Raises UsageError where it has no lock, IntegrityError where its bytes are not the locked ones,
    ProofError where it does not do what its definition promises, and HostError.
    """
    image = Image(name, read_lock(name), store)
    (store.root / "images").mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(store.root / "images" / f"{image.lock.rootfs_sha256}.lock"):
        if not image.folder.is_dir():
            with log.step(f"Image {name}"):
                _make_ready(image, mirrors, jobs)
    return image


def _make_ready(image: Image, mirrors: Mirrors, jobs: int) -> None:
    """Assemble and unpack; the folder gets its name only when it is complete, as locked, and proven."""
    with scratch(image.store.root / "scratch", "image") as folder:
        tar = _stored(image)
        if tar is not None:
            manifest = unpack(tar, folder / "image")
        else:
            (folder / "work").mkdir()
            with log.step("Assembling"):
                tar, root = assemble(image, mirrors, folder / "work", jobs=jobs)
            # One thread hashes the tar while the other hashes the tree; nothing counts before both are done.
            with ThreadPoolExecutor(1) as pool:
                stored = pool.submit(_store, image, tar)
                if root is None:
                    manifest = unpack(stored.result(), folder / "image")
                else:
                    manifest = _adopt(root, folder / "image")
                stored.result()
        if tree.manifest_sha256(manifest) != image.lock.tree_sha256:
            raise IntegrityError(f"Image {image.name} did not unpack to the files of its lock.")
        prove(image.name, read_definition(image.name), folder / "image" / "root", image.store)
        files.sync_tree(folder / "image")
        (folder / "image").rename(image.folder)


def _stored(image: Image) -> Path | None:
    try:
        return image.store.find(image.lock.rootfs_sha256, f"image {image.name}")
    except IntegrityError as e:
        log.warn(e.message)
        return None


def _store(image: Image, tar: Path) -> Path:
    try:
        return image.store.take_file(tar, image.lock.rootfs_sha256)
    except IntegrityError as e:
        raise IntegrityError(
            f"Image {image.name} came out differently from its lock. {e.message}",
            hint="This host's tools behave differently from those that made the lock: "
            f"./inv image {image.name} --verify says in which files.",
        ) from e


def _adopt(root: Path, folder: Path) -> str:
    """Do as `unpack` does with the tree that a tar was made of: what the tar does not hold goes."""
    for path in [root, *root.rglob("*")]:
        for name in os.listxattr(path, follow_symlinks=False):
            os.removexattr(path, name, follow_symlinks=False)
    folder.mkdir()
    folder.chmod(0o755)
    root.rename(folder / "root")
    return _note(folder)


def assemble(image: Image, mirrors: Mirrors, folder: Path, *, jobs: int) -> tuple[Path, Path | None]:
    """Fetch an image's packages and make its tar, in ``folder``, whether it is the locked one or not.

    Returns the tar, and the tree that it was made of where that is left.
    """
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


def from_files(
    definition: Definition, lock: Lock, found: Mapping[str, Path], folder: Path
) -> tuple[Path, Path | None]:
    """Make a lock's tar, in ``folder``, from files that were fetched; see `assemble`."""
    if isinstance(lock, ArchLock):
        return arch.assemble(lock, found, folder)
    assert isinstance(definition, DebianDefinition)
    return debian.assemble(definition, lock.packages, found, lock.source_date_epoch, folder), None


def unpack(tar: Path, folder: Path) -> str:
    """Unpack a root file system's tar into ``folder``/root, and return and keep the tree's manifest."""
    root = folder / "root"
    # mmdebstrap leaves /dev out with what is in it; bubblewrap mounts its own there.
    (root / "dev").mkdir(parents=True)
    for path in (folder, root, root / "dev"):
        path.chmod(0o755)  # whatever this process's umask is
    owner = "--same-owner" if os.geteuid() == 0 else "--no-same-owner"
    run(["tar", "--extract", "--preserve-permissions", "--numeric-owner", owner, "--file", tar], cwd=root)
    return _note(folder)


def _note(folder: Path) -> str:
    manifest = tree.manifest(folder / "root")
    (folder / "manifest").write_text(manifest, encoding="utf-8")
    return manifest
