"""What the jail's guard costs a build: ``python -m benchmarks.jail [RUNS]``.

The same job under bubblewrap, in turns with the guard and without: compiling a small file again and again,
which is what builds do most (processes, files, no network). Prints the CPU seconds of each and the ratio;
they count the guard's own. Run from the project's folder, with the image of release 4.17 in the store.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from unittest import mock

import platformdirs

from benchmarks._cost import measure
from pipeline.engine import guard
from pipeline.engine.bubblewrap import Bubblewrap
from pipeline.engine.job import Job
from pipeline.image import assembly
from pipeline.mirrors import Mirrors
from pipeline.store import Store
from tests.conftest import IMAGE

_SCRIPT = """
printf '#include <stdio.h>\\nint main(void) { puts("x"); return 0; }\\n' > x.c
for n in $(seq 250); do gcc -O2 -c x.c -o x$((n % 10)).o; test -s x.c; cat x.c > y.c; done
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


def main(runs: int) -> None:
    """Measure both in turns, and print."""
    image = assembly.prepare(IMAGE, Store(platformdirs.user_cache_path("xen-aur-pipeline")), Mirrors())
    guarded, bare = [], []
    with tempfile.TemporaryDirectory(prefix="jail-") as name:
        Path(name).chmod(0o755)
        for _ in range(runs):
            guarded.append(compile_in(image, Path(name)))
            with mock.patch.object(guard, "command", lambda job, _root: job.argv):
                bare.append(compile_in(image, Path(name)))
    one, other = statistics.median(guarded), statistics.median(bare)
    sys.stdout.write(
        f"250 compiles, median of {runs}: with the guard {one:.2f} s of CPU, without {other:.2f} s; "
        f"ratio {one / other:.3f}\n"
    )


if __name__ == "__main__":
    main(int((sys.argv[1:] or ["5"])[0]))
