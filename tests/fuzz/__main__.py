"""Fuzzes every reader of outside data with atheris, guided by coverage, for as long as one likes.

    python -m tests.fuzz --seconds 3600             all targets, one after the other
    python -m tests.fuzz --seconds 60 mtree elf     some

atheris is no part of the project's environment: .venv/bin/python -m pip install atheris. What a target finds
is written to artifacts/fuzz; an input that was mended goes to tests/fuzz/corpus.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent
_PROJECT = _HERE.parents[1]
_TARGETS = sorted(path.name for path in (_HERE / "corpus").iterdir())
_FOUND = _PROJECT / "artifacts" / "fuzz"
_SECONDS_EACH = 10
"""How long one input may take."""
_MEMORY = 1536
"""MiB that one target may take, atheris and Python included."""


@dataclass(frozen=True)
class Outcome:
    """How a target's time went."""

    target: str
    runs: int
    edges: int
    findings: int
    seconds: float


def fuzz(target: str, seconds: float) -> Outcome:
    """Fuzz one target in a process of its own, again after each finding until its time is over."""
    grown = _FOUND / "grown" / target
    crashes = _FOUND / "findings" / target
    for folder in (grown, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    start, runs, edges, findings = time.monotonic(), 0, 0, 0
    while (left := seconds - (time.monotonic() - start)) > 1:
        command = [
            *(sys.executable, "-m", "tests.fuzz", "--one", target, f"-max_total_time={int(left)}"),
            *(
                f"-timeout={_SECONDS_EACH}",
                f"-rss_limit_mb={_MEMORY}",
                "-max_len=65536",
                "-print_final_stats=1",
            ),
            *(f"-artifact_prefix={crashes}/", str(grown), str(_HERE / "corpus" / target)),
        ]
        ended = subprocess.run(
            command, cwd=_PROJECT, capture_output=True, text=True, errors="replace", check=False
        )
        said = ended.stdout + ended.stderr
        counts = re.findall(r"#(\d+)\t", said)
        total = re.search(r"number_of_executed_units: (\d+)", said)
        runs += int(total[1]) if total else int(counts[-1]) if counts else 0
        edges = max([edges, *(int(n) for n in re.findall(r"cov: (\d+)", said))])
        if ended.returncode == 0:
            break
        if "Test unit written to" not in said:
            sys.exit(f"{target} does not even start:\n{said[-2000:]}")
        findings += 1
        (crashes / f"{findings}.log").write_text(said[-20000:])
        if not counts:
            break  # An input that is kept already: it would come again at once.
    return Outcome(target, runs, edges, findings, time.monotonic() - start)


def one(target: str, arguments: list[str]) -> None:
    """Be the process that fuzzes a target."""
    import atheris

    with atheris.instrument_imports(include=["pipeline"]):
        # Here and not above: what was imported before is not looked into.
        from tests.fuzz import targets
    atheris.Setup([target, *arguments], lambda data: targets.feed(target, data))
    atheris.Fuzz()


def main() -> int:
    """Fuzz, and print a table."""
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], sys.argv[3:])
        return 0
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Fuzz the readers of outside data."
    )
    parser.add_argument(
        "--seconds", type=float, default=60.0 * len(_TARGETS), help="for all targets together"
    )
    parser.add_argument("targets", nargs="*", choices=[*_TARGETS, []], metavar="TARGET")
    wanted = parser.parse_args()
    names = wanted.targets or _TARGETS
    total_runs = total_findings = 0
    sys.stdout.write(f"{'target':<16}{'inputs':>12}{'edges':>8}{'findings':>10}{'seconds':>9}\n")
    for name in names:
        outcome = fuzz(name, wanted.seconds / len(names))
        total_runs, total_findings = total_runs + outcome.runs, total_findings + outcome.findings
        numbers = f"{outcome.runs:>12}{outcome.edges:>8}{outcome.findings:>10}{outcome.seconds:>9.0f}"
        sys.stdout.write(f"{name:<16}{numbers}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{'all':<16}{total_runs:>12}{'':>8}{total_findings:>10}\n")
    return 1 if total_findings else 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    sys.exit(main())
