"""Runs the benchmarks and sums their ratios up: ``python -m benchmarks [NAME...]``; without a name, all.

Each is a module of this folder that prints what it measured, ratios of one run: "ratio 0.97 of rates". The
table adds how long it took and its peak memory, that of its largest process. The plot goes to
artifacts/benchmarks.svg: a bar a ratio, on a logarithmic axis around 1.
"""

from __future__ import annotations

import argparse
import html
import math
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline import log

_HERE = Path(__file__).parent
_PLOT = _HERE.parent / "artifacts" / "benchmarks.svg"
_RATIO = re.compile(
    r"^(?P<before>.*?)\bratio\b(?P<more>[^0-9\n]*)(?P<value>[0-9]+(\.[0-9]+)?)(?P<after>[^,;(\n]*)", re.M
)
_WIDTH, _LINE, _TEXT = 760, 26, 420


@dataclass(frozen=True)
class Ratio:
    """One ratio that a benchmark printed: of what, and how much."""

    benchmark: str
    what: str
    value: float


@dataclass(frozen=True)
class Run:
    """How a benchmark went: what it printed, its seconds, and the bytes of its largest process."""

    name: str
    output: str
    status: int
    seconds: float
    memory: int

    @property
    def ratios(self) -> list[Ratio]:
        """The ratios in the output, in their order."""
        return [
            Ratio(self.name, _words(found), float(found["value"])) for found in _RATIO.finditer(self.output)
        ]


def _words(found: re.Match[str]) -> str:
    """What a line says of its ratio: the words around it, or those before its first number."""
    words = f"{found['more'].strip()} {found['after'].strip()}".strip(" .:")
    before = re.split(r"\b[0-9]", found["before"])[0].strip(" ,:")
    return " ".join(filter(None, (before, words)))[:60]


def run(name: str) -> Run:
    """Run one in a process of its own."""
    start = time.monotonic()
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    with subprocess.Popen(command, cwd=_HERE.parent, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    # ru_maxrss is in KiB (getrusage(2)), and holds that of the largest child that was waited for.
    memory = usage.ru_maxrss << 10
    return Run(name, output, process.returncode, time.monotonic() - start, memory)


def plot(ratios: list[Ratio]) -> str:
    """Draw the ratios as SVG."""
    largest = max((abs(math.log2(ratio.value)) for ratio in ratios if ratio.value > 0), default=1) or 1
    middle, scale = _TEXT + (_WIDTH - _TEXT) / 2, (_WIDTH - _TEXT) / 2 / largest * 0.8
    height = _LINE * (len(ratios) + 1)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<line x1="{middle:.0f}" y1="0" x2="{middle:.0f}" y2="{height}" stroke="#888"/>',
    ]
    for number, ratio in enumerate(ratios):
        top = _LINE * number + 6
        length = math.log2(ratio.value) * scale if ratio.value > 0 else 0
        left, label = min(middle, middle + length), html.escape(f"{ratio.benchmark}: {ratio.what}")
        lines += [
            f'<text x="4" y="{top + 13}">{label}</text>',
            f'<rect x="{left:.1f}" y="{top}" width="{max(abs(length), 1):.1f}" height="16" fill="#47a"/>',
            f'<text x="{_WIDTH - 44}" y="{top + 13}">{ratio.value:g}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def main() -> int:
    """Run, print the table, and write the plot."""
    known = sorted(path.stem for path in _HERE.glob("*.py") if not path.stem.startswith("_"))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure, as ratios of one run."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    names = parser.parse_args().names or known
    for name in names:
        if name not in known:
            parser.error(f"there is no benchmark {name!r}; there are: {', '.join(known)}")
    runs = []
    for name in names:
        with log.step(f"Benchmark {name}"):
            runs.append(run(name))
            sys.stdout.write(runs[-1].output)
            sys.stdout.flush()
    ratios = [ratio for one in runs for ratio in one.ratios]
    sys.stdout.write(f"\n{'benchmark':<14}{'ratio':>8}  {'of':<60}{'took':>14}{'peak memory':>14}\n")
    for one in runs:
        for ratio in one.ratios or [Ratio(one.name, "failed" if one.status else "no ratio", math.nan)]:
            took, memory = log.duration(one.seconds), log.size(one.memory)
            sys.stdout.write(f"{one.name:<14}{ratio.value:>8g}  {ratio.what:<60}{took:>14}{memory:>14}\n")
    _PLOT.parent.mkdir(exist_ok=True)
    _PLOT.write_text(plot(ratios))
    sys.stdout.write(f"\n{_PLOT}\n")
    return 1 if any(one.status for one in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
