"""Compares making an Arch image with pacman alone: ``python -m benchmarks.arch_image [RUNS] [COMPRESSOR]``.

Run as root from the project's folder; it uses the tests' own archive, with the fat package compressed by
COMPRESSOR (xz, as the archive's first years have it, or zst). Both start from a lock and packages that
are on disk. Prints the median seconds of each and their ratio, measured in turns in one run.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import platformdirs

from pipeline.image import assembly
from pipeline.image.lock import ArchLock, parse_lock
from pipeline.mirrors import Mirrors
from pipeline.store import Store
from tests import archive, checkouts, keys
from tests.archive import NAME, Archive
from tests.checkouts import Checkout
from tests.conftest import IMAGE


def pacman_alone(lock: ArchLock, store: Store, folder: Path) -> float:
    """Return the seconds that pacman takes to install the locked packages into an empty root."""
    for name in ("root/var/lib/pacman/sync", "root/dev", "root/proc", "packages"):
        (folder / name).mkdir(parents=True)
    config = ["[options]", "Architecture = x86_64", "SigLevel = Never"]
    for database in lock.databases:
        shutil.copy(
            store.path(database.sha256), folder / f"root/var/lib/pacman/sync/{database.repository}.db"
        )
        config += [f"[{database.repository}]", "Server = file:///nonexistent"]
    for package in lock.packages:
        os.link(store.path(package.sha256), folder / "packages" / package.file)
    (folder / "pacman.conf").write_text("\n".join(config))
    (folder / "root/dev/null").touch()
    script = (
        "mount --bind /dev/null root/dev/null; mount -t proc proc root/proc; exec pacman --root $PWD/root "
        "--dbpath $PWD/root/var/lib/pacman --config pacman.conf --cachedir $PWD/packages --noconfirm "
        '--gpgdir /nonexistent --hookdir /nonexistent --logfile /dev/null --noprogressbar --sync "$@"'
    )
    targets = [f"{package.repository}/{package.name}" for package in lock.packages]
    argv = ["unshare", "--mount", "--pid", "--fork", "--net", "sh", "-ec", script, "sh", *targets]
    start = time.monotonic()
    subprocess.run(argv, cwd=folder, check=True, capture_output=True)
    return time.monotonic() - start


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


def ours(lock: ArchLock, checkout: Checkout) -> float:
    """Return the seconds from the lock to an image in place and its tar in the store."""
    store = Store(checkout.store)
    shutil.rmtree(store.root / "images" / lock.rootfs_sha256, ignore_errors=True)
    store.path(lock.rootfs_sha256).unlink(missing_ok=True)
    argv: list[str | Path] = [sys.executable, "-c", _OURS, NAME, store.root]
    env = {**os.environ, "PYTHONPATH": os.fspath(checkout.root)}
    done = subprocess.run(argv, cwd="/", env=env, check=True, capture_output=True, text=True)
    return float(done.stdout)


def main(runs: int, compression: str) -> None:
    """Make the archive and the lock, measure both in turns, and print."""
    debian = assembly.prepare(IMAGE, Store(platformdirs.user_cache_path("xen-aur-pipeline")), Mirrors())
    # On a disk, as the store is; the folder is short-lived.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as temporary:
        folder = Path(temporary)
        made = Archive(folder / "archive")
        with keys.some() as known:
            made.make(debian.root, known["mine"], known["other"], compression)
        checkout = Checkout(checkouts.copy(folder / "project"), folder / "store", archive.ENVIRONMENT)
        definition, _, _ = archive.DEFINITION.partition("keys = ")
        with archive.serving(made) as server:
            (checkout.root / "containers" / f"{NAME}.toml").write_text(definition)
            (checkout.root / "invoke.yaml").write_text(archive.settings(server))
            checkout.run("image.lock", NAME).fine()
        lock = parse_lock(checkout.root / "containers" / f"{NAME}.lock", arch=True)
        assert isinstance(lock, ArchLock)
        store = Store(checkout.store)
        alone, whole = [], []
        for number in range(runs):
            (folder / str(number)).mkdir()
            alone.append(pacman_alone(lock, store, folder / str(number)))
            shutil.rmtree(folder / str(number))
            whole.append(ours(lock, checkout))
    one, other = statistics.median(alone), statistics.median(whole)
    size = sum(package.size for package in lock.packages) / (1 << 20)
    sys.stdout.write(
        f"{len(lock.packages)} packages, {size:.0f} MiB ({compression}), median of {runs} runs\n"
    )
    sys.stdout.write(f"pacman alone     {one:6.2f} s\n")
    sys.stdout.write(f"lock to image    {other:6.2f} s\n")
    sys.stdout.write(f"ratio            {other / one:6.2f}\n")


if __name__ == "__main__":
    main(int((sys.argv[1:] or ["5"])[0]), (sys.argv[2:] or ["xz"])[0])
