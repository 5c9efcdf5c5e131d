"""A repository with its whole history: what nightly builds follow, count, compare and bisect.

The mirrors of pipeline.git.mirror hold single commits, which is enough to build one. Here are all commits
of the branches that were asked for, in ``git/history/`` of the store.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pipeline.errors import CommandError, HostError, TimeLimitError, UsageError
from pipeline.git.command import Git, environment, reason
from pipeline.git.mirror import make, tidy, wait
from pipeline.mirrors import Mirrors
from pipeline.run import run
from pipeline.store import Store
from pipeline.transport import RefusedError, TransientError, shown

_ANSWER = 30.0
"""Seconds that a server may take to say what a branch points to."""
# git-log(1), "PRETTY FORMATS"; %x1f and %x1e part fields and commits, as no name or subject may hold them.
_FORMAT = "%H%x1f%an%x1f%cI%x1f%s%x1e"


class UpstreamError(HostError):
    """No URL of a repository answers, or none has the branch."""


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A commit as people speak of it; ``date`` is the committer's, as ISO 8601."""

    commit: str
    author: str
    date: str
    subject: str

    def __str__(self) -> str:
        return f"{self.commit[:12]} {self.subject} ({self.author})"


@dataclass(frozen=True)
class Tip:
    """Where a branch was found to end, and which URL said so."""

    commit: str
    url: str


def tip(store: Store, urls: Sequence[str], branch: str) -> Tip:
    """Ask the first URL that answers what a branch points to now; raises UpstreamError."""
    git = Git(store.root)
    git.configure()
    reasons: list[str] = []
    for url in urls:
        argv = ["git", "ls-remote", "--exit-code", "--", url, f"refs/heads/{branch}"]
        try:
            result = run(argv, env=environment(git.home), timeout=_ANSWER, expect=None)
        except TimeLimitError:
            reasons.append(f"{shown(url)}: no answer within {_ANSWER:g} s")
            continue
        found = re.search(rf"^([0-9a-f]{{40}})\trefs/heads/{re.escape(branch)}$", result.output, re.MULTILINE)
        if result.status == 0 and found is not None:
            return Tip(found[1], url)
        reasons.append(
            f"{shown(url)}: {'has no such branch' if result.status == 2 else reason(result.output)}"
        )
    raise UpstreamError(f"No URL says what branch {branch} points to.", hint="\n".join(reasons))


@dataclass(frozen=True)
class History:
    """A bare repository that this process has locked, see `opened`; or a clone that is its own, without."""

    git: Git
    folder: Path
    lock: int | None

    def update(self, url: str, branch: str, commit: str) -> None:
        """Bring a branch with all its history from a URL, where the commit is not here yet.

        What upstream has rewritten is followed; commits that were here stay, for past nights.
        Raises UpstreamError.
        """
        if self.has(commit):
            return
        assert self.lock is not None
        try:
            result = self.git.transfer(
                *("fetch", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--progress"),
                *("--", url, f"+refs/heads/{branch}:refs/heads/{branch}"),
                folder=self.folder,
                lock=self.lock,
                grown=self._grown,
            )
        except (TransientError, RefusedError) as e:
            raise UpstreamError(f"{shown(url)} could not be fetched: {e.message}.") from e
        if result.status != 0:
            raise UpstreamError(f"{shown(url)} could not be fetched: {reason(result.output)}.")
        if not self.has(commit):
            raise UpstreamError(f"{shown(url)} no longer has {commit}, which it had a moment ago.")
        self.keep(commit)

    def keep(self, commit: str) -> None:
        """Keep a commit for good, even if upstream drops it."""
        self._call("update-ref", f"refs/kept/{commit}", commit)

    def has(self, commit: str) -> bool:
        """Whether a commit is here."""
        return self._call("cat-file", "-t", commit, any_status=True).strip() == "commit"

    def resolve(self, name: str) -> str:
        """The full id of a commit, branch or abbreviation; raises UsageError."""
        found = self._call(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}", any_status=True
        )
        if re.fullmatch(r"[0-9a-f]{40}\n", found) is None:
            raise UsageError(f"Upstream's history has no commit {name}.")
        return found.strip()

    def count(self, commit: str) -> int:
        """How many commits lead to this one, itself included."""
        return int(self._call("rev-list", "--count", commit))

    def time(self, commit: str) -> int:
        """The committer's time, in seconds since 1970."""
        return int(self._call("show", "--no-patch", "--format=%ct", commit))

    def show(self, commit: str, path: str) -> str | None:
        """A file's text as of a commit; None where it has none of that name."""
        try:
            return self._call("cat-file", "blob", f"{commit}:{path}")
        except CommandError:
            return None

    def is_ancestor(self, old: str, new: str) -> bool:
        """Whether one commit leads to another; not so where upstream has rewritten its history."""
        return self._call("merge-base", old, new, any_status=True).strip() == old

    def between(self, good: str, bad: str, *, paths: Sequence[str] = (), limit: int = 500) -> list[Change]:
        """The commits that are in ``bad`` and not in ``good``, newest first, that touch ``paths``."""
        output = self._call(
            "log", f"--max-count={limit}", f"--format={_FORMAT}", bad, f"^{good}", "--", *paths
        )
        return _changes(output)

    def change(self, commit: str) -> Change:
        """A commit as people speak of it."""
        return _changes(self._call("log", "--max-count=1", f"--format={_FORMAT}", commit))[0]

    def touched(self, good: str, bad: str) -> set[str]:
        """The paths that differ between two commits."""
        output = self._call("diff", "--name-only", "-z", "--no-renames", good, bad)
        return {path for path in output.split("\0") if path}

    def clone(self, folder: Path) -> History:
        """Make a bare repository that borrows all objects of this one."""
        self.git.call("clone", "--quiet", "--bare", "--shared", os.fspath(self.folder), os.fspath(folder))
        return History(self.git, folder, None)

    def _call(self, *argv: str, any_status: bool = False) -> str:
        expect = None if any_status else (0,)
        return self.git.call(*argv, folder=self.folder, expect=expect, lock=self.lock)

    def _grown(self) -> int:
        total = 0
        with contextlib.suppress(OSError):
            for path in (self.folder / "objects" / "pack").iterdir():
                total += path.stat().st_size
        return total


def _changes(output: str) -> list[Change]:
    changes = []
    for text in output.split("\x1e"):
        fields = text.strip("\n").split("\x1f")
        if len(fields) == 4:
            commit, author, date, subject = fields
            changes.append(Change(commit=commit, author=author, date=date, subject=subject))
    return changes


@contextlib.contextmanager
def opened(store: Store, url: str) -> Iterator[History]:
    """Give the repository of a URL (as a release file has it), which is made on first use; others wait.

    One that is damaged is made anew, and filled by the next update.
    """
    git = Git(store.root)
    name = hashlib.sha256(url.encode()).hexdigest()
    folder = store.root / "git" / "history" / f"{name}.git"
    locks = store.root / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    fd = os.open(locks / f"history-{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        wait(fd, "upstream's history", git.stop.is_set)
        git.configure()
        if not folder.is_dir():
            make(git, folder)
        else:
            tidy(folder)
        yield History(git, folder, fd)
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


def urls(mirrors: Mirrors, pinned: Sequence[str]) -> list[str]:
    """All places to ask, in order, for the URLs of a release file."""
    return list(dict.fromkeys(found for url in pinned for found in mirrors.resolve(url)))


__all__ = ["Change", "History", "Tip", "UpstreamError", "opened", "tip", "urls"]
