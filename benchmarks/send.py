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
    name = f"b{secrets.token_hex(3)}"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    with tempfile.TemporaryDirectory(dir="/var/tmp") as temporary:
        folder = Path(temporary)
        package = folder / "xen-1.0-1-any.pkg.tar.xz"
        package.write_bytes(secrets.token_bytes(mib << 20))
        keys = sshd.make_keys(folder / "keys")
        target = Target("far", folder / "far", 2222, namespace=name, address="10.212.7.2")
        target.prepare()
        ip("netns", "add", name)
        try:
            ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
            ip("addr", "add", "10.212.7.1/30", "dev", f"{name}a")
            ip("link", "set", f"{name}a", "up")
            ip("-n", name, "addr", "add", "10.212.7.2/30", "dev", f"{name}b")
            ip("-n", name, "link", "set", f"{name}b", "up")
            if mbit:
                shape = ["tbf", "rate", f"{mbit}mbit", "burst", "128k", "latency", "50ms"]
                subprocess.run(["tc", "qdisc", "add", "dev", f"{name}a", "root", *shape], check=True)
            target.start(keys)
            with sshd.use_configuration(sshd.configure(keys, [target]), folder / "path"):
                cargo = load([package], folder)
                ours = measure(lambda: send(cargo, ["far"]), target)
                plain = measure(
                    lambda: subprocess.run(["rsync", "--times", package, "far:xen.pkg"], check=True), target
                )
        finally:
            target.stop()
            subprocess.run(["ip", "link", "del", f"{name}a"], check=False)
            ip("netns", "del", name)
    link = f"{mbit} Mbit/s" if mbit else "unlimited link"
    print(f"{mib} MiB, {link}: send {ours:.2f} s, rsync {plain:.2f} s, ratio of rates {plain / ours:.2f}")  # noqa: T201


if __name__ == "__main__":
    main(*(int(word) for word in (*sys.argv[1:3], *("64", "100")[len(sys.argv) - 1 :])))
