"""What the fast tier of the smoke boots costs: ``python -m benchmarks.smoke RELEASE [RUNS] [LOAD]``.

Makes the fast tier of a release's newest build RUNS times (once), with LOAD busy processes beside it (none),
and prints for each run how long the cold boot and all guests took, how long from a restore to an answering
xl, and the ratio of a case's cost from a snapshot to its cost with a cold boot of its own: in seconds of
processor, which other work on the host does not change. A case about a guest that runs goes on from a
snapshot with that guest, and would have to start it after its cold boot. A case that is red in any run of a
sound package is a flake; they are counted, and named.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pipeline.boot import boot
from pipeline.settings import Settings
from pipeline.smoke.case import Start
from pipeline.smoke.cases import BOOT, GUESTS
from pipeline.smoke.results import SmokeResult, Verdict
from pipeline.steps import Steps


@contextlib.contextmanager
def load(processes: int) -> Iterator[None]:
    """Keep processors busy meanwhile."""
    busy = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def run(release: str, output: Path) -> SmokeResult:
    """Make the whole fast tier, from a cold boot on."""
    steps = Steps(Settings.read({"release": release}), release)
    build = steps.newest()
    steps = steps.like(build)
    return boot(steps, build.packages, output)


def report(result: SmokeResult) -> str:
    """Return a line of what one run took, and the ratios of its cases."""
    cases = {case.name: case for case in result.cases}
    boot = result.cases[: len(BOOT)]
    cold = {Start.HOST: sum(case.cpu for case in boot if case.begin <= cases["dom0-up"].begin)}
    cold[Start.GUEST] = cold[Start.HOST] + sum(cases[case.name].cpu for case in GUESTS if case.makes)
    ratios: dict[Start, list[float]] = {Start.HOST: [], Start.GUEST: []}
    restores = []
    for case in GUESTS:
        done = cases[case.name]
        if done.verdict is Verdict.PASS and done.restored:
            ratios[case.start].append(done.cpu / (done.cpu + cold[case.start]))
            restores.append(done.begin)
    both = [*ratios[Start.HOST], *ratios[Start.GUEST]]
    if not both:
        return f"{result.verdict}: no case passed from a snapshot"
    whole = result.timings["machine"] + result.timings.get("guests", 0)
    return (
        f"{result.verdict}: boot and {len(both)} cases {whole:.1f} s; restored after"
        f" {statistics.median(restores):.2f} s (at most {max(restores):.2f} s); cost of a case from a"
        f" snapshot, ratio of its cost with a cold boot: median {statistics.median(both):.2f};"
        f" {_spread('with a guest that runs', ratios[Start.GUEST])};"
        f" {_spread('that boots a guest', ratios[Start.HOST])}"
    )


def _spread(what: str, ratios: list[float]) -> str:
    if not ratios:
        return f"0 {what}"
    median = statistics.median(ratios)
    return f"{len(ratios)} {what} {median:.2f} (least {min(ratios):.2f}, most {max(ratios):.2f})"


def main() -> None:
    """Make the runs."""
    release = sys.argv[1] if len(sys.argv) > 1 else "4.17"
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    busy = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    red: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="smoke-benchmark-") as folder, load(busy):
        for number in range(1, runs + 1):
            result = run(release, Path(folder) / str(number))
            red.update(case.name for case in result.failures)
            sys.stdout.write(f"run {number}: {report(result)}\n")
            sys.stdout.flush()
    whole = f"{runs} runs of {len(BOOT) + len(GUESTS)} cases under {busy} busy processes"
    sys.stdout.write(f"{whole}: {red.total()} red {' '.join(red)}\n")


if __name__ == "__main__":
    main()
