"""A branch becomes a commit, and the commit a lock that says all that a build of it needs."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline import records
from pipeline import release as releases
from pipeline.errors import UsageError
from pipeline.git import history as histories
from pipeline.git.history import History
from pipeline.release import BranchLock, Release
from pipeline.settings import Settings

# Xen's makefiles: `export XEN_VERSION = 4`, `XEN_EXTRAVERSION ?= -unstable$(XEN_VENDORVERSION)`.
_NUMBER = re.compile(
    r"^export (XEN_VERSION|XEN_SUBVERSION|XEN_EXTRAVERSION)\s*\??=\s*([^\s$]*)", re.MULTILINE
)
_NAME = re.compile(
    r"^([A-Z0-9]+(?:_[A-Z]+)*_(?:REVISION|TAG))\s*\??=\s*([A-Za-z0-9][^\s$]*)\s*$", re.MULTILINE
)


def lock(release: Release, history: History, commit: str, branch: str, *, above: int = 0) -> BranchLock:
    """Describe a commit of the release's branch.

    ``above`` is the count of the last package that users may have: where upstream has rewritten its
    history and fewer commits are left, the count goes on from there, as pacman updates only upwards.
    """
    count = max(history.count(commit), above + 1)
    base, xen_version = _versions(release, history.show(commit, "xen/Makefile") or "")
    return BranchLock(
        release=release.name,
        branch=branch,
        commit=commit,
        count=count,
        version=f"{base}.r{count}.g{commit[:10]}",
        xen_version=xen_version,
        source_date_epoch=max(1, history.time(commit)),
        names=dict(_NAME.findall(history.show(commit, "Config.mk") or "")),
    )


def ask(settings: Settings, name: str, branch: str = "", commit: str = "") -> BranchLock:
    """Describe what a branch of a release's upstream points to, or a commit of it (online).

    ``branch`` is the release's own where it is empty. Raises UsageError and UpstreamError.
    """
    release = releases.read(name)
    if release.branch is None:
        raise UsageError(f"Release {name} follows no branch.")
    branch = branch or release.branch
    urls = histories.urls(settings.open_mirrors, release.git[0].urls)
    tip = histories.tip(settings.open_store, urls, branch)
    with histories.opened(settings.open_store, release.git[0].urls[0]) as history:
        history.update(tip.url, branch, tip.commit)
        return lock(release, history, history.resolve(commit) if commit else tip.commit, branch)


def read(path: Path) -> BranchLock:
    """Read a lock that was named by hand; raises UsageError."""
    try:
        return records.decode(path.read_bytes(), BranchLock)
    except OSError as e:
        raise UsageError(f"{path} cannot be read: {e.strerror}.") from e
    except records.RecordError as e:
        raise UsageError(f"{path} is no lock: {e}.") from e


def _versions(release: Release, makefile: str) -> tuple[str, str]:
    """Return what pkgver begins with, and what the hypervisor's banner will say."""
    found = dict(_NUMBER.findall(makefile))
    if not {"XEN_VERSION", "XEN_SUBVERSION"} <= found.keys():
        return release.version.partition(".r")[0], release.xen_version
    series = f"{found['XEN_VERSION']}.{found['XEN_SUBVERSION']}"
    extra = found.get("XEN_EXTRAVERSION", "")
    point = re.match(r"\.[0-9]+", extra)
    return series + (point[0] if point else ""), series + extra
