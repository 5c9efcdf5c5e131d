"""What the jail's guard costs a build: ``python -m benchmarks.jail [RUNS [RELEASE]]``.

First the same job under bubblewrap, in turns with the guard and without: compiling a small file again and
again, which is what builds do most (processes, files, no network). Then the whole build of RELEASE (4.17),
with and without at the same time, so that whatever else the machine does weighs on both alike. Prints the CPU
seconds of each and the ratios; they count the guard's own. Run from the project's folder, with the release's
image and sources in the store.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from unittest import mock

from benchmarks import _stores
from benchmarks._cost import Cost, measure
from pipeline import release as releases
from pipeline.engine import guard
from pipeline.engine.bubblewrap import Bubblewrap
from pipeline.engine.job import Job
from pipeline.image import assembly
from pipeline.mirrors import Mirrors
from pipeline.store import Store
from pipeline.version import PROJECT

_SCRIPT = """
printf '#include <stdio.h>\\nint main(void) { puts("x"); return 0; }\\n' > x.c
for n in $(seq 250); do gcc -O2 -c x.c -o x$((n % 10)).o; test -s x.c; cat x.c > y.c; done
"""
_UNGUARDED = """
import runpy
from pipeline.engine import guard
guard.command = lambda job, _root: job.argv
runpy.run_module("pipeline", run_name="__main__", alter_sys=True)
"""


def compile_in(image: assembly.Image, folder: Path) -> float:
    """Run the job, and return the CPU seconds that it took."""
    script = folder / "script"
    script.write_text(_SCRIPT)
    with tempfile.TemporaryDirectory(dir=folder) as output:
        job = Job(("/bin/bash", "script"), {"script": script})
        engine = Bubblewrap(folder / "scratch")
        work = lambda: engine.run_in(job, image.root, image.name, Path(output), lambda _: None)  # noqa: E731
        return measure(work).cpu


def compiles(runs: int, name: str) -> None:
    """Measure the small job in turns, and print."""
    image = assembly.prepare(name, Store(_stores.shared()), Mirrors())
    guarded, bare = [], []
    with tempfile.TemporaryDirectory(prefix="jail-") as folder:
        Path(folder).chmod(0o755)
        for _ in range(runs):
            guarded.append(compile_in(image, Path(folder)))
            with mock.patch.object(guard, "command", lambda job, _root: job.argv):
                bare.append(compile_in(image, Path(folder)))
    one, other = statistics.median(guarded), statistics.median(bare)
    sys.stdout.write(
        f"250 compiles, median of {runs}: with the guard {one:.2f} s of CPU, without {other:.2f} s; "
        f"ratio {one / other:.3f} of CPU\n"
    )


def build(release: str, folder: Path, program: tuple[str, ...]) -> Cost:
    """Build a release in a store where nothing is compiled, and return what it took."""
    command = [sys.executable, *program, str(PROJECT), "build", release]
    env = _stores.environment(folder)
    return measure(lambda: subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL))


def whole_build(release: str) -> None:
    """Measure the build with and without at once, and print."""
    scratch = _stores.shared() / "scratch"
    with tempfile.TemporaryDirectory(dir=scratch) as name, ProcessPoolExecutor(2) as pool:
        guarded = pool.submit(build, release, Path(name) / "guarded", ("-m", "pipeline"))
        bare = pool.submit(build, release, Path(name) / "bare", ("-c", _UNGUARDED))
        one, other = guarded.result(), bare.result()
    sys.stdout.write(
        f"a whole build, {release}: with the guard {one.cpu:.0f} s of CPU ({one.time:.0f} s), without "
        f"{other.cpu:.0f} s ({other.time:.0f} s); ratio {one.cpu / other.cpu:.3f} of CPU\n"
    )


def main(runs: int, release: str) -> None:
    """Measure both."""
    compiles(runs, releases.read(release).image)
    whole_build(release)


if __name__ == "__main__":
    count, of = (*sys.argv[1:3], *("5", "4.17")[len(sys.argv) - 1 :])
    main(int(count), of)
