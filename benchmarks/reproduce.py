"""What a rebuild costs beside the build: ``python -m benchmarks.reproduce [RELEASE] [VARIATIONS] [WITHOUT]``.

Run from the project's folder. It builds RELEASE (4.17), leaving out what WITHOUT names, in a store of its own
with nothing compiled before, and reproduces a finished build of the same, with every variation or with those
named. Both at the same time, so that whatever else the machine does weighs on both alike; both by bubblewrap,
as nobody here can count what docker's containers use. Prints the CPU seconds of each, with all that it leaves
running, the seconds, and the ratios.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks import _stores
from benchmarks._cost import Cost
from benchmarks._cost import measure as cost
from pipeline.version import PROJECT


def run(arguments: tuple[str, ...], env: dict[str, str]) -> None:
    """Run a command of the project."""
    subprocess.run([str(PROJECT / "inv"), *arguments], env=env, check=True)


def measure(arguments: tuple[str, ...], env: dict[str, str]) -> Cost:
    """Run a command of the project and return what it and all its descendants took."""
    return cost(lambda: run(arguments, env))


def main(release: str, vary: str, without: str) -> None:
    """Measure both, and print."""
    with tempfile.TemporaryDirectory(dir=_stores.shared() / "scratch") as name:
        fresh = _stores.environment(Path(name) / "fresh")
        finished = _stores.environment(Path(name) / "finished", "compiled")
        arguments = ("build", release, "--without", without)
        run(arguments, finished)
        with ProcessPoolExecutor(2) as pool:
            building = pool.submit(measure, arguments, fresh)
            repeating = pool.submit(
                measure, ("reproduce", release, *(["--vary", vary] if vary else [])), finished
            )
            build, again = building.result(), repeating.result()
    print(  # noqa: T201
        f"{release}: build {build.cpu:.0f} s of CPU ({build.time:.0f} s), reproduce {again.cpu:.0f} s of CPU"
        f" ({again.time:.0f} s), ratio {again.cpu / build.cpu:.2f} of CPU ({again.time / build.time:.2f})"
    )


if __name__ == "__main__":
    main(*(sys.argv[1:4] + ["4.17", "", ""][len(sys.argv) - 1 :]))
