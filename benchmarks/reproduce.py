"""What a rebuild costs beside the build: ``python -m benchmarks.reproduce [RELEASE] [VARIATIONS] [WITHOUT]``.

Run from the project's folder. It builds RELEASE (4.17), leaving out what WITHOUT names, and reproduces it,
with every variation or with those named. Both begin with the store's sources and image, and with nothing
compiled before; both are done by bubblewrap, as nobody here can count what docker's containers use. Prints
the CPU seconds of each, with all that it leaves running, the seconds, and the ratios: CPU seconds are what a
busy machine leaves comparable.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import platformdirs

from benchmarks._cost import Cost
from benchmarks._cost import measure as cost

PROJECT = Path(__file__).resolve().parents[1]


def measure(*arguments: str, env: dict[str, str]) -> Cost:
    """Run a command of the project and return what it and all its descendants took."""
    command = [str(PROJECT / "inv"), *arguments]
    return cost(lambda: subprocess.run(command, env=env, check=True))


def borrowed(store: Path, folder: Path) -> Path:
    """Make a store that has another's files and images, and nothing compiled."""
    target = folder / "store"
    target.mkdir()
    for name in ("images", "sha256", "locks"):
        (target / name).symlink_to(store / name)
    return target


def main(release: str, vary: str, without: str) -> None:
    """Measure both, and print."""
    named = os.environ.get("INVOKE_PIPELINE_STORE")
    store = Path(named) if named else platformdirs.user_cache_path("xen-aur-pipeline")
    with tempfile.TemporaryDirectory(dir=store / "scratch") as name:
        env = {
            **os.environ,
            "INVOKE_PIPELINE_ENGINE": "bubblewrap",
            "INVOKE_PIPELINE_STORE": str(borrowed(store, Path(name))),
            "INVOKE_PIPELINE_ARTIFACTS": str(Path(name) / "artifacts"),
        }
        build = measure("build", release, "--without", without, env=env)
        again = measure("reproduce", release, *(["--vary", vary] if vary else []), env=env)
    print(  # noqa: T201
        f"{release}: build {build.cpu:.0f} s of CPU ({build.time:.0f} s), reproduce {again.cpu:.0f} s of CPU"
        f" ({again.time:.0f} s), ratio {again.cpu / build.cpu:.2f} of CPU ({again.time / build.time:.2f})"
    )


if __name__ == "__main__":
    main(*(sys.argv[1:4] + ["4.17", "", ""][len(sys.argv) - 1 :]))
