"""Builds of a branch with ccache and without: ``python -m benchmarks.ccache [RELEASE [COMMITS [WITHOUT]]]``.

The night before, COMMITS older (10 without it), fills an empty cache. Then tonight's commit is built without
ccache, with it, and with it once more. Prints each build's seconds (of the clock, and of processors), the
share of the compiled files that the cache had, ratios, and whether the packages are the same, byte for byte.
WITHOUT names features to leave out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks import _stores
from benchmarks._cost import Cost, measure
from pipeline import build as builds
from pipeline import files, records, release
from pipeline.git import history as histories
from pipeline.image.lock import parse_lock
from pipeline.nightly import resolve
from pipeline.release import BranchLock
from pipeline.settings import Settings
from pipeline.version import PROJECT
from tests import checkouts


@dataclass(frozen=True)
class Built:
    """What a build cost, and the hashes of its packages."""

    cost: Cost
    hashes: dict[str, str]


@dataclass(frozen=True)
class Site:
    """A store without anything compiled, and a folder for what is built of a release."""

    folder: Path
    settings: Settings
    name: str
    without: str

    @property
    def store(self) -> Path:
        """The store."""
        return self.folder / "store"

    def build(self, title: str, lock: BranchLock, *words: str) -> Built:
        """Build what a lock says, and print what it cost."""
        for note in self.store.glob("compiled/*.json"):
            note.unlink()
        path = self.folder / "lock.json"
        files.write_bytes(path, records.encode(lock))
        artifacts = self.folder / title.replace(" ", "-")
        env = {
            **os.environ,
            "INVOKE_PIPELINE_STORE": str(self.store),
            "INVOKE_PIPELINE_ARTIFACTS": str(artifacts),
        }
        argv: list[str | Path] = [PROJECT / "inv", "build", self.name, "--lock", path, *words]
        argv += ["--without", self.without] if self.without else []
        cost = measure(lambda: subprocess.run(argv, env=env, check=True, stdout=subprocess.DEVNULL))
        found = builds.newest(artifacts, self.name)
        use = found.record.ccache
        hits = "" if use is None else f"; {use}: {use.share:.1%}"
        sys.stdout.write(f"{title:<24}{cost.time:7.0f} s, {cost.cpu:6.0f} s of processors{hits}\n")
        sys.stdout.flush()
        return Built(cost, found.hashes)


def prepare(folder: Path, name: str, without: str) -> Site:
    """Give an empty store what builds of a release need, but for its sources."""
    settings = _stores.settings(name)
    image = release.read(name).image
    subprocess.run([PROJECT / "inv", "image", image], check=True, stdout=subprocess.DEVNULL)
    lock = parse_lock(PROJECT / "containers" / f"{image}.lock", arch=False)
    checkouts.private_store(folder / "store", settings.open_store.root, lock.rootfs_sha256)
    return Site(folder, settings, name, without)


def locks(site: Site, commits: int) -> tuple[BranchLock, BranchLock]:
    """Describe the commit in the release file, and one that is ``commits`` older."""
    found = release.read(site.name)
    source, branch = found.git[0], str(found.branch)
    urls = histories.urls(site.settings.open_mirrors, source.urls)
    tip = histories.tip(site.settings.open_store, urls, branch)
    with histories.opened(site.settings.open_store, source.urls[0]) as history:
        history.update(tip.url, branch, tip.commit)
        older = history.resolve(f"{source.commit}~{commits}")
        first, second = (resolve.lock(found, history, one, branch) for one in (older, source.commit))
        return first, second


def main(name: str = "unstable", commits: str = "10", without: str = "") -> None:
    """Compare."""
    with tempfile.TemporaryDirectory(prefix="ccache-") as folder:
        site = prepare(Path(folder), name, without)
        before, tonight = locks(site, int(commits))
        sys.stdout.write(f"{before.version}, then {tonight.version}\n")
        site.build("the night before", before, "--ccache")
        cold = site.build("without", tonight)
        warm = site.build("with", tonight, "--ccache")
        again = site.build("with, the same again", tonight, "--ccache")
    for one, what in ((warm, "with ccache to without"), (again, "with all of it in the cache to without")):
        sys.stdout.write(f"ratio {one.cost.cpu / cold.cost.cpu:.2f} of processor seconds {what}\n")
    same = cold.hashes == warm.hashes == again.hashes
    sys.stdout.write(f"{', '.join(cold.hashes)}: {'the same bytes' if same else 'NOT THE SAME BYTES'}\n")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
