"""When a bisection may build the hypervisor alone, which takes a fraction of the time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pipeline import build as builds
from pipeline.release import Release

LEFT_OUT = ("docs", "tools")
"""The features without which a build is the hypervisor alone."""

# Its own sources, but for the headers that the tools are compiled with; and what is not compiled at all.
_HARMLESS = re.compile(
    r"xen/(?!include/public/).+|(docs|automation|\.github)/.+|[^/]+\.(md|yml|yaml)|MAINTAINERS|COPYING"
)


def possible(release: Release) -> bool:
    """Whether a release can be built so."""
    return release.features.keys() >= set(LEFT_OUT)


def suffices(touched: Iterable[str]) -> bool:
    """Whether a change of these paths of upstream's can matter to nothing but the hypervisor.

    Some tools are compiled from files of its, too: a bisection whose ends turn out to be alike without the
    tools needs whole builds after all.
    """
    return all(map(_HARMLESS.fullmatch, touched))


def whole(folder: Path, commit: str) -> Path | None:
    """The folder of a build of a commit with everything in it, below a release's folder; None without one."""
    for build in builds.every(folder):
        lock = builds.read_lock(build.folder)
        if lock is not None and lock.commit == commit and not build.record.without:
            return build.folder
    return None
