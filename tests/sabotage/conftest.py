"""The field of all faults, made once for all workers, and a server for each worker."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import filelock
import pytest

from pipeline.image import assembly
from tests import checkouts, servers, small
from tests.checkouts import Checkout
from tests.sabotage.ground import PLACE, STEPS, Field, Ground
from tests.small import Small

MOMENTS = int(os.environ.get("SABOTAGE", "0"))
"""How many random moments of each step are tried: 0 where all of the project's tests run."""

# Of a size that does not fit on every disk.
SOURCE = small.archive(random.Random(9).randbytes(150_000).hex())


@pytest.fixture
def place(server: servers.Server) -> str:
    """The source's URL on this worker's server, which gives it as it should be."""
    return server.add("/sabotage/small-1.0.tar.gz", servers.good(SOURCE))


@pytest.fixture(scope="session")
def prepared(shared_folder: Path, image: assembly.Image, server: servers.Server) -> Path:
    """Folders of the project after each step, done once."""
    folder = shared_folder / "sabotage field"
    with filelock.FileLock(shared_folder / "sabotage.lock"):
        if not (folder / "done").exists():
            server.add("/sabotage/small-1.0.tar.gz", servers.good(SOURCE))
            _start(folder / "start", image)
            for name, step in STEPS.items():
                before = folder / (step.after or "start")
                shutil.copytree(before, folder / name, symlinks=True, copy_function=os.link)
                settings = folder / name / "project" / "invoke.yaml"
                settings.unlink(missing_ok=True)  # a link to that of the step before
                rewrites = f'mirrors: {{rewrites: {{"{PLACE}": ["{server.root}/sabotage/"]}}}}'
                settings.write_text(f"pipeline:\n  release: small\n  {rewrites}\n")
                Checkout(folder / name / "project", folder / name / "store").run(*step.words).fine()
            (folder / "done").touch()
    return folder


def _start(folder: Path, image: assembly.Image) -> None:
    root = checkouts.copy(folder / "project")
    (root / "artifacts").mkdir(exist_ok=True)
    Small(SOURCE, f"{PLACE}small-1.0.tar.gz").write(root)
    checkouts.private_store(folder / "store", image.store.root, image.lock.rootfs_sha256)


@pytest.fixture
def field(prepared: Path, server: servers.Server, place: str) -> Field:
    return Field(prepared, lambda: f"{server.root}/sabotage/")


@pytest.fixture
def ground(field: Field, tmp_path: Path) -> Callable[[str], Ground]:
    """Make a copy of the project before a step, in a folder with a difficult name."""

    def make(step: str) -> Ground:
        return field.ground(step, tmp_path / "zwei Wörter")

    return make
