"""How fast packages are checked and verified: ``python -m benchmarks.check [RELEASE] [RUNS]``.

Run from the project's folder, with a finished build of RELEASE (4.17). Prints the median seconds of `inv
check` and `inv verify` on it, with a key made for this, the MiB of installed files a second, and the ratios
to what everybody has for that: bsdtar unpacking the packages, and gpg and sha256sum.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pipeline import package, seal
from pipeline.version import PROJECT
from tests import keys


def median(runs: int, work: Callable[[], object]) -> float:
    """Return the median seconds of some runs."""
    seconds = []
    for _ in range(runs):
        start = time.monotonic()
        work()
        seconds.append(time.monotonic() - start)
    return statistics.median(seconds)


def quiet(*argv: str | Path, cwd: Path = PROJECT, env: dict[str, str] | None = None) -> None:
    """Run a command whose failure is the benchmark's, and throw away what it says."""
    subprocess.run([*argv], cwd=cwd, env=env, check=True, capture_output=True)


def inv(*arguments: str | Path) -> None:
    """Run a command of the project; verify ends with 1 where a step was not done, after the same work."""
    if subprocess.run(
        [PROJECT / "inv", *arguments], cwd=PROJECT, check=False, capture_output=True
    ).returncode not in (0, 1):
        raise SystemExit(f"{arguments[0]} failed")


def main(release: str, runs: int) -> None:
    """Measure, and print."""
    newest = (PROJECT / "artifacts" / release / "latest").resolve()
    with tempfile.TemporaryDirectory() as name, keys.some() as some:
        folder, key = Path(name) / "build", some["mine"]
        shutil.copytree(newest, folder)
        seal.seal(folder, {})
        packages = sorted(folder.glob("*.pkg.tar.xz"))
        installed = sum(m.size for path in packages for m in package.read(path).files) / (1 << 20)
        for path in [folder / "SHA256SUMS", *packages]:
            key.sign(path)

        def check() -> None:
            # Its evidence is kept there, with which it would do nothing a second time.
            shutil.rmtree(PROJECT / "artifacts" / release / "foreign", ignore_errors=True)
            inv("check", *packages, "--expect", release)

        def by_hand() -> None:
            for path in [folder / "SHA256SUMS", *packages]:
                quiet("gpg", "--verify", f"{path}.sig", path, env={**os.environ, "GNUPGHOME": str(key.home)})
            quiet("sha256sum", "--check", "--quiet", "SHA256SUMS", cwd=folder)

        def unpack() -> None:
            with tempfile.TemporaryDirectory() as root:
                for path in packages:
                    quiet("bsdtar", "-xf", path, "-C", root)

        ours, tar = median(runs, check), median(runs, unpack)
        verify, hand = median(runs, lambda: inv("verify", folder, "--key", key.file)), median(runs, by_hand)
    said = (
        f"{release}, {installed:.0f} MiB installed",
        f"check {ours:.1f} s ({installed / ours:.1f} MiB/s), bsdtar {tar:.2f} s, "
        f"ratio {ours / tar:.1f} of times",
        f"verify {verify:.2f} s ({installed / verify:.0f} MiB/s), gpg and sha256sum {hand:.2f} s, "
        f"ratio {verify / hand:.1f} of times",
    )
    print("\n".join(said))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "4.17", int(sys.argv[2]) if len(sys.argv) > 2 else 3)
