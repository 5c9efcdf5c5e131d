"""Copies of this checkout, in which tests run the real command line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

PROJECT = Path(__file__).resolve().parents[1]
NOT_COPIED = (".git", ".venv", "artifacts", "tests")


@dataclass(frozen=True)
class Finished:
    """How a command ended, what it said, and the seconds that it took."""

    status: int
    out: str
    err: str
    seconds: float

    def fine(self) -> Finished:
        """Assert that it was fine."""
        assert self.status == 0, self.err
        return self

    def failed(self, status: int) -> Finished:
        """Assert that it ended with that status, and as users may expect it: without a traceback."""
        assert self.status == status, (self.status, self.err)
        assert "Traceback" not in self.err, self.err
        assert "error: " in self.err
        assert "The pipeline itself failed" not in self.err, self.err
        return self


@dataclass
class Checkout:
    """A copy of the project, with a store and settings of its own."""

    root: Path
    store: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def popen(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        stdin: BinaryIO | None = None,
    ) -> subprocess.Popen[str]:
        """Start a command of the project, as `inv` would; ``prefix`` is a program that starts it."""
        settings = {
            "PYTHONPATH": str(self.root),
            "PYTHONDONTWRITEBYTECODE": "1",
            "INVOKE_PIPELINE_RELEASE": "small",
            "INVOKE_PIPELINE_ENGINE": "bubblewrap",
            "INVOKE_PIPELINE_STORE": str(self.store),
        }
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", "pipeline", str(self.root), *arguments],
            env={**os.environ, **settings, **self.environment, **(env or {})},
            cwd="/",
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_as_inv_does,
        )

    def run(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        timeout: float = 900,
    ) -> Finished:
        """Run a command of the project to its end."""
        start = time.monotonic()
        with self.popen(*arguments, env=env, prefix=prefix) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except BaseException:
                process.kill()
                raise
        return Finished(process.returncode, out, err, time.monotonic() - start)

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def latest(self) -> Path:
        """The newest build of the small package."""
        return (self.artifacts / "small" / "latest").resolve()

    def packages(self) -> dict[str, bytes]:
        """The newest build's packages."""
        return {path.name: path.read_bytes() for path in sorted(self.latest.glob("*.pkg.tar.xz"))}


def _as_inv_does() -> None:
    # A test runner in the background ignores Ctrl-C, which its children would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def copy(target: Path) -> Path:
    """Copy the project's files as they are now, tracked or new, to a folder that is made for them."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        check=True,
    )
    for name in filter(None, os.fsdecode(listing.stdout).split("\0")):
        if name.split("/")[0] in NOT_COPIED or not (PROJECT / name).is_file():
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, target / name)
    return target


def running_in(folder: Path) -> list[str]:
    """The processes on this host that name a folder or work in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            if str(folder) in line or os.readlink(process / "cwd").startswith(str(folder)):
                found.append(line)
        except OSError:
            continue
    return found


def private_store(store: Path, shared: Path, rootfs_sha256: str) -> Path:
    """Make a store that has nothing but an image, which it borrows from another one."""
    store.mkdir(parents=True)
    (store / "images").symlink_to(shared / "images")
    borrow(shared, store, rootfs_sha256)
    return store


def borrow(owner: Path, store: Path, sha256: str) -> None:
    """Put another store's entry into a store, as a link where they are on one file system."""
    name = f"sha256/{sha256[:2]}/{sha256}"
    (store / name).parent.mkdir(parents=True, exist_ok=True)
    try:
        (store / name).hardlink_to(owner / name)
    except OSError:
        shutil.copy(owner / name, store / name)
