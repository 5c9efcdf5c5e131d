"""Compares `inv send` with plain rsync over the same ssh link: ``python -m benchmarks.send [MIB] [MBIT]``.

Run as root from the project's folder. It starts an sshd of its own in a network namespace, behind a link of
MBIT per second (0 is as fast as it goes). Prints the median of five runs each, and the ratio of the rates.
"""

from __future__ import annotations

import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks._link import FAR, link
from pipeline.transfer.send import load, send
from tests.transfer import sshd
from tests.transfer.sshd import Target

RUNS = 5


def measure(work: Callable[[], object], target: Target) -> float:
    """Return the median seconds of some runs, each to a machine that has nothing yet."""
    seconds = []
    for _ in range(RUNS):
        shutil.rmtree(target.home)
        target.home.mkdir()
        start = time.monotonic()
        work()
        seconds.append(time.monotonic() - start)
    return statistics.median(seconds)


def main(mib: int, mbit: int) -> None:
    """Set up the link, measure both, and print."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as temporary, link(mbit) as line:
        folder = Path(temporary)
        package = folder / "xen-1.0-1-any.pkg.tar.xz"
        package.write_bytes(secrets.token_bytes(mib << 20))
        keys = sshd.make_keys(folder / "keys")
        target = Target("far", folder / "far", 2222, namespace=line.namespace, address=FAR)
        target.prepare()
        target.start(keys)
        try:
            with sshd.use_configuration(sshd.configure(keys, [target]), folder / "path"):
                cargo = load([package], folder)
                ours = measure(lambda: send(cargo, ["far"]), target)
                rsync: list[str | Path] = ["rsync", "--times", package, "far:xen.pkg"]
                plain = measure(lambda: subprocess.run(rsync, check=True), target)
        finally:
            target.stop()
    print(f"{mib} MiB, {line}: send {ours:.2f} s, rsync {plain:.2f} s, ratio of rates {plain / ours:.2f}")  # noqa: T201


if __name__ == "__main__":
    main(*(int(word) for word in (*sys.argv[1:3], *("64", "100")[len(sys.argv) - 1 :])))
