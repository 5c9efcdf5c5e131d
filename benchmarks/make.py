"""The pipeline's build beside a bare make in the same root: ``python -m benchmarks.make [RELEASE]``.

Bare is the same prepare() and build() of the same PKGBUILD, started by bubblewrap in the image's root without
anything of the pipeline: no guard, no limits, no packages made, nothing verified or kept. Run as root from
the project's folder, with the release's image and sources in the store. Prints CPU seconds and seconds of
each, and the ratios: the pipeline's hold all that `./inv build` does, makepkg's packaging included.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import _stores
from benchmarks._cost import measure
from pipeline.engine.job import Job
from pipeline.steps import Steps
from pipeline.version import PROJECT

_MAKEPKG = PROJECT / "pipeline" / "makepkg"


def workspace(steps: Steps, folder: Path) -> None:
    """Lay out what compile.sh wants."""
    plan = steps.plan()
    (folder / "sources").mkdir(parents=True)
    (folder / "output").mkdir()
    (folder / "PKGBUILD").write_text(plan.recipe.compile_part)
    shutil.copy(_MAKEPKG / "compile.sh", folder)
    for source, path in steps.fetch().items():
        shutil.copy(path, folder / "sources" / getattr(source, "file_name", source.name))
    subprocess.run(["chown", "-R", "1000:1000", folder], check=True)


def bare(steps: Steps, folder: Path) -> None:
    """Run compile.sh in the image's root, and nothing else."""
    job = Job(("/bin/bash", "compile.sh"))
    variables = {
        **job.full_environment(),
        **steps.plan().environment,
        "MAKEFLAGS": f"-j{steps.settings.compile_jobs}",
    }
    argv = [
        "bwrap",
        "--unshare-pid",
        "--unshare-net",
        "--ro-bind",
        str(steps.image().root),
        "/",
        "--proc",
        "/proc",
    ]
    argv += ["--dev", "/dev", "--perms", "1777", "--tmpfs", "/tmp", "--bind", str(folder), "/build"]  # noqa: S108
    argv += ["--chdir", "/build", "--clearenv"]
    for key, value in variables.items():
        argv += ["--setenv", key, value]
    argv += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--"]
    argv += ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", *job.command]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main(release: str) -> None:
    """Measure both, and print."""
    with tempfile.TemporaryDirectory(dir=_stores.shared() / "scratch") as name:
        folder = Path(name)
        env = _stores.environment(folder)
        command = [sys.executable, "-m", "pipeline", str(PROJECT), "build", release]
        ours = measure(lambda: subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL))
        steps = Steps(_stores.settings(release), release)
        workspace(steps, folder / "work")
        theirs = measure(lambda: bare(steps, folder / "work"))
    sys.stdout.write(
        f"{release}: pipeline {ours.cpu:.0f} s of CPU ({ours.time:.0f} s), bare make {theirs.cpu:.0f} s "
        f"({theirs.time:.0f} s), ratio {ours.cpu / theirs.cpu:.2f} of CPU ({ours.time / theirs.time:.2f})\n"
    )


if __name__ == "__main__":
    main((sys.argv[1:] or ["4.17"])[0])
