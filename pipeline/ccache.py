"""ccache(1) for builds of a branch: of what was compiled last night, most is the same tonight.

Never for releases. What it gave is compared with a build without it by every night's reproduce.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from pipeline.engine.job import CACHE, WORKSPACE, Job
from pipeline.errors import UsageError
from pipeline.image.assembly import Image

LOG = "ccache.log"
"""The file in a job's output that says what became of each file that it compiled."""
# Debian's and Arch's: a folder of links that are called as the compilers are.
_PROGRAMS = ("usr/lib/ccache", "usr/lib/ccache/bin")
_OLD = 30 * 24 * 3600
"""Seconds after which the cache of an image that nobody used any more is removed."""


class Use(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many compiled files a build took from the cache, and how many it had to compile."""

    hits: int
    misses: int

    @property
    def share(self) -> float:
        """The hits' share of all, from 0 to 1."""
        return self.hits / max(1, self.hits + self.misses)

    def __str__(self) -> str:
        return f"ccache had {self.hits:,} of {self.hits + self.misses:,} compiled files"


@dataclass(frozen=True)
class Ccache:
    """Caches, one an image, below ``folder``, of at most ``size`` bytes each."""

    folder: Path
    size: int

    def lent(self, job: Job, image: Image) -> Job:
        """Return a job that compiles with the cache; raises UsageError where the image has no ccache."""
        environment = {**job.environment, **self._environment(image)}
        return replace(job, environment=environment, cache=self._own(image))

    def _own(self, image: Image) -> Path:
        """The cache of an image, whose compiler no other one has; those not used for a month are removed."""
        own = self.folder / image.id.rpartition(":")[2][:16]
        own.mkdir(parents=True, exist_ok=True)
        now = time.time()
        for other in self.folder.iterdir():
            with contextlib.suppress(OSError):
                if other != own and now - other.stat().st_mtime > _OLD:
                    shutil.rmtree(other)
        return own

    def _environment(self, image: Image) -> dict[str, str]:
        return {
            "PATH": f"/{_programs(image)}:{Job.BASE_ENVIRONMENT['PATH']}",
            "CCACHE_DIR": CACHE,
            # Not the one in the cache, which earlier builds could have written to.
            "CCACHE_CONFIGPATH": "/dev/null",
            "CCACHE_MAXSIZE": f"{self.size >> 20}Mi",
            "CCACHE_STATSLOG": f"{WORKSPACE}/output/{LOG}",
        }


def _programs(image: Image) -> str:
    # The deeper one first: where it is, the other holds nothing but it.
    for folder in reversed(_PROGRAMS):
        if (image.root / folder / "gcc").is_symlink():
            return folder
    raise UsageError(
        f"Image {image.name} has no ccache.", hint="Add it to the image, or set nightly.ccache to 0."
    )


def read(log: Path) -> Use:
    """Count what a job's log says (ccache's manual, `stats_log`); one without a log compiled nothing."""
    try:
        found = Counter(log.read_text(encoding="utf-8", errors="replace").splitlines())
    except FileNotFoundError:
        found = Counter()
    return Use(hits=found["direct_cache_hit"] + found["preprocessed_cache_hit"], misses=found["cache_miss"])
