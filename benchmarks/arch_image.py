"""Compares making an Arch image with pacman alone: ``python -m benchmarks.arch_image [RUNS] [COMPRESSOR]``.

Run as root from the project's folder. The image has as many packages as real ones have (see
benchmarks._arch_archive), compressed by COMPRESSOR: xz, as the archive's first years have it, or zst. Both
start from a lock and packages that are on disk, and end with a tree that is written to the disk. Prints the
median seconds of each and their ratio, measured in turns in one run; pacman's without the disk as well.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from benchmarks import _arch_archive as arch_archive
from pipeline.image import assembly
from pipeline.image.lock import ArchLock, parse_lock
from pipeline.mirrors import Mirrors
from pipeline.store import Store
from tests import archive, checkouts
from tests.checkouts import Checkout
from tests.conftest import IMAGE

_PACMAN = """
mount -t tmpfs none root/dev
touch root/dev/null
mount --bind /dev/null root/dev/null
mount -t proc proc root/proc
exec pacman --root $PWD/root --dbpath $PWD/root/var/lib/pacman --config pacman.conf --cachedir $PWD/packages \
  --gpgdir /nonexistent --hookdir /nonexistent --logfile /dev/null --noconfirm --noprogressbar --sync "$@"
"""


@dataclass(frozen=True)
class Bench:
    """An image's lock in a checkout whose store has all its packages."""

    checkout: Checkout

    @property
    def lock(self) -> ArchLock:
        """The lock."""
        lock = parse_lock(self.checkout.root / "containers" / f"{arch_archive.NAME}.lock", arch=True)
        assert isinstance(lock, ArchLock)
        return lock

    @property
    def store(self) -> Store:
        """The store."""
        return Store(self.checkout.store)


def prepare(folder: Path, compression: str) -> Bench:
    """Make the archive, and the image's lock."""
    debian = assembly.prepare(IMAGE, Store(platformdirs.user_cache_path("xen-aur-pipeline")), Mirrors())
    with tempfile.TemporaryDirectory(dir=folder) as work:
        Path(work).chmod(0o755)
        arch_archive.make(debian.root, Path(work), folder / "archive", compression)
    bench = Bench(Checkout(checkouts.copy(folder / "project"), folder / "store", archive.ENVIRONMENT))
    arch_archive.configure(bench.checkout.root, folder / "archive")
    bench.checkout.run("image.lock", arch_archive.NAME).fine()
    return bench


def pacman_alone(bench: Bench, folder: Path) -> tuple[float, float]:
    """Return the seconds that pacman takes to install the locked packages, and those to the disk as well."""
    for name in ("root/var/lib/pacman/sync", "root/dev", "root/proc", "packages"):
        (folder / name).mkdir(parents=True)
    config = ["[options]", "Architecture = x86_64", "SigLevel = Never"]
    for database in bench.lock.databases:
        synced = folder / f"root/var/lib/pacman/sync/{database.repository}.db"
        shutil.copy(bench.store.path(database.sha256), synced)
        config += [f"[{database.repository}]", "Server = file:///nonexistent"]
    for package in bench.lock.packages:
        os.link(bench.store.path(package.sha256), folder / "packages" / package.file)
    (folder / "pacman.conf").write_text("\n".join(config))
    targets = [f"{package.repository}/{package.name}" for package in bench.lock.packages]
    argv = ["unshare", "--mount", "--pid", "--fork", "--net", "sh", "-ec", _PACMAN, "sh", *targets]
    os.sync()
    start = time.monotonic()
    subprocess.run(argv, cwd=folder, check=True, capture_output=True)
    installed = time.monotonic()
    subprocess.run(["sync", "--file-system", folder], check=True)
    return installed - start, time.monotonic() - start


_OURS = """
import sys, time
from pathlib import Path
from pipeline.image import assembly
from pipeline.mirrors import Mirrors
from pipeline.store import Store
start = time.monotonic()
assembly.prepare(sys.argv[1], Store(Path(sys.argv[2])), Mirrors())
print(time.monotonic() - start)
"""


def ours(bench: Bench) -> float:
    """Return the seconds from the lock to an image in place."""
    sha256 = bench.lock.rootfs_sha256
    shutil.rmtree(bench.store.root / "images" / sha256, ignore_errors=True)
    bench.store.path(sha256).unlink(missing_ok=True)
    argv: list[str | Path] = [sys.executable, "-c", _OURS, arch_archive.NAME, bench.store.root]
    env = {**os.environ, "PYTHONPATH": os.fspath(bench.checkout.root)}
    os.sync()
    done = subprocess.run(argv, cwd="/", env=env, check=True, capture_output=True, text=True)
    return float(done.stdout)


def measure(bench: Bench, folder: Path, runs: int) -> None:
    """Measure both in turns, and print."""
    installed, durable, whole = [], [], []
    for number in range(runs):
        place = folder / str(number)
        place.mkdir()
        seconds = pacman_alone(bench, place)
        installed.append(seconds[0])
        durable.append(seconds[1])
        shutil.rmtree(place)
        whole.append(ours(bench))
    lock = bench.lock
    size = sum(package.size for package in lock.packages) / (1 << 20)
    root = bench.store.root / "images" / lock.rootfs_sha256 / "root"
    files = [path.lstat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    lines = (
        f"{len(lock.packages)} packages of {size:.0f} MiB, {len(files)} files of {sum(files) >> 20} MiB, "
        f"median of {runs} runs",
        f"pacman alone, in memory   {statistics.median(installed):6.2f} s",
        f"pacman alone, on disk     {statistics.median(durable):6.2f} s",
        f"lock to image, on disk    {statistics.median(whole):6.2f} s",
        f"ratio                     {statistics.median(whole) / statistics.median(durable):6.2f}",
    )
    sys.stdout.write("\n".join(lines) + "\n")


def main(runs: int, compression: str) -> None:
    """Make everything below a folder that is on a disk, as the store is, and does not stay."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        measure(prepare(folder, compression), folder, runs)


if __name__ == "__main__":
    main(int((sys.argv[1:] or ["5"])[0]), (sys.argv[2:] or ["xz"])[0])
