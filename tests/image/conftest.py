"""A small Arch archive, and an image locked and assembled from it, once for all workers."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock
import pytest

from pipeline.image import assembly
from pipeline.image.lock import ArchLock, parse_lock
from tests import archive, checkouts, keys
from tests.archive import NAME, Archive
from tests.checkouts import Checkout
from tests.servers import Server


@dataclass(frozen=True)
class ArchImage:
    """The image of the archive's first day, made in ``checkout``."""

    checkout: Checkout
    archive: Archive

    @property
    def said(self) -> str:
        """What `image` said while it made the lock."""
        return (self.checkout.root.parent / "said").read_text()

    @property
    def file(self) -> Path:
        """What `image --export` wrote."""
        return self.checkout.root.parent / "image.tar"

    @property
    def lock_file(self) -> Path:
        return self.checkout.root / "containers" / f"{NAME}.lock"

    @property
    def lock(self) -> ArchLock:
        lock = parse_lock(self.lock_file, arch=True)
        assert isinstance(lock, ArchLock)
        return lock

    def package(self, name: str) -> str:
        """A package's SHA-256."""
        return next(package.sha256 for package in self.lock.packages if package.name == name)


@pytest.fixture(scope="session")
def arch_archive(shared_folder: Path, image: assembly.Image) -> Archive:
    """Kept in the store until the code that makes it changes: makepkg takes its time."""
    code = Path(archive.__file__).read_bytes() + image.id.encode()
    kept = image.store.root / "tests-arch" / hashlib.sha256(code).hexdigest()[:16]
    own = shared_folder / "arch archive"
    with filelock.FileLock(shared_folder / "arch-archive.lock"):
        if not own.exists():
            if not kept.exists():
                shutil.rmtree(kept.parent, ignore_errors=True)
                made = kept.with_name(f".{kept.name}.{os.getpid()}")
                with keys.some() as known:
                    Archive(made).make(image.root, known["mine"], known["other"])
                made.rename(kept)
            # This run's own: a run of other code would remove the other one.
            subprocess.run(["cp", "--archive", kept, shared_folder / "half an archive"], check=True)
            (shared_folder / "half an archive").rename(own)
    return Archive(own)


def new_checkout(folder: Path, arch_archive: Archive, server: Server) -> Checkout:
    """A checkout with the image's definition and no lock, for which the server is the archive."""
    checkout = Checkout(checkouts.copy(folder / "project"), folder / "store", archive.ENVIRONMENT)
    (checkout.root / "containers" / f"{NAME}.toml").write_text(archive.DEFINITION)
    (checkout.root / "keys").mkdir(exist_ok=True)
    shutil.copy(arch_archive.folder / "mine.asc", checkout.root / "keys")
    (checkout.root / "invoke.yaml").write_text(archive.settings(server))
    return checkout


@pytest.fixture
def mirror(arch_archive: Archive) -> Iterator[Server]:
    """The archive's server, in good order; a test may give a path another behaviour."""
    with archive.serving(arch_archive) as server:
        yield server


@pytest.fixture(scope="session")
def arch(shared_folder: Path, arch_archive: Archive) -> ArchImage:
    """The image, locked and assembled once."""
    folder = shared_folder / "arch"
    with filelock.FileLock(shared_folder / "arch.lock"), archive.serving(arch_archive) as server:
        checkout = Checkout(folder / "project", folder / "store", archive.ENVIRONMENT)
        made = ArchImage(checkout, arch_archive)
        if not made.lock_file.exists():
            new_checkout(folder, arch_archive, server)
            (folder / "said").write_text(checkout.run("image", NAME, "--export", str(made.file)).fine().err)
    return made


@pytest.fixture
def elsewhere(tmp_path: Path, arch: ArchImage, mirror: Server) -> Checkout:
    """Another checkout with the lock, and a store that has nothing but the fat package."""
    checkout = new_checkout(tmp_path, arch.archive, mirror)
    shutil.copy(arch.lock_file, checkout.root / "containers")
    checkouts.borrow(arch.checkout.store, checkout.store, arch.package("fat"))
    return checkout
