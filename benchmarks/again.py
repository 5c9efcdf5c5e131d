"""A second release run beside the first: ``python -m benchmarks.again [RELEASE]``.

The first builds, checks and boots from the store's sources and image, with nothing compiled before; the
second finds all of it in place. Run from the project's folder. Prints the seconds of both and the ratio.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import _stores
from pipeline.version import PROJECT


def main(release: str) -> None:
    """Measure both, and print."""
    with tempfile.TemporaryDirectory(dir=_stores.shared() / "scratch") as name:
        env = _stores.environment(Path(name))
        seconds = []
        for _ in range(2):
            start = time.monotonic()
            command = [str(PROJECT / "inv"), "release", release, "--no-reproduce"]
            subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.monotonic() - start)
    first, second = seconds
    sys.stdout.write(f"{release}: first {first:.1f} s, again {second:.2f} s, ratio {second / first:.4f}\n")


if __name__ == "__main__":
    main((sys.argv[1:] or ["4.17"])[0])
