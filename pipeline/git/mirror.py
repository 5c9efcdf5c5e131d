"""A bare mirror in the store: fetches of single commits, under a lock that lasts as long as git does."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import log
from pipeline.errors import CommandError
from pipeline.git import tags
from pipeline.git.command import Git, reason
from pipeline.git.objects import Objects
from pipeline.git.tags import TagError
from pipeline.scratch import remove_tree, scratch
from pipeline.source import GitSource
from pipeline.store import CancelledError
from pipeline.transport import RefusedError, TransientError

_POLL = 0.1
# Servers that give only what a branch or tag ends in, and those that are plain folders over HTTP.
_NO_SINGLE_COMMIT = re.compile(
    r"unadvertised object|not valid|does not support shallow|doesn't support --depth|filtering not recognized"
)
_LACKS_COMMIT = re.compile(r"not our ref|did not send all necessary objects|remote did not send")
_LACKS_TAG = re.compile(r"couldn't find remote ref")
_NO_REPOSITORY = re.compile(
    r"not found|does not appear to be a git repository|does not exist|Authentication|could not read Username"
    r"|Permission denied|transport '.*' not allowed|returned error: 4|access denied"
)


class LacksCommitError(RefusedError):
    """A repository does not have the pinned commit."""


@dataclass(frozen=True)
class Mirror:
    """A locked mirror; see `locked`."""

    git: Git
    folder: Path
    lock: int

    @property
    def objects(self) -> Objects:
        """The mirror's objects."""
        return Objects(self.git, self.folder)

    def is_sound(self) -> bool:
        """Whether git can read its configuration and references; its objects are not looked at."""
        try:
            self._call("for-each-ref")
        except CommandError:
            return False
        return True

    def has(self, source: GitSource) -> bool:
        """Whether a fetch of the commit (and of its tag, where the key is given) was complete."""
        if self._resolve(pin(source)) != source.commit:
            return False
        return source.key is None or self._resolve(_tag_pin(source)) is not None

    def fetch(self, url: str, source: GitSource) -> None:
        """Bring a commit, and its tag where one is given, from a URL into the mirror.

        Raises LacksCommitError, TagError, SignatureError's and other kinds of RefusedError,
        TransientError, and CancelledError.
        """
        if source.tag is not None and self._fetch_tag(url, source):
            return
        result = self._run(url, [f"+{source.commit}:{pin(source)}"], "--depth=1")
        if result is None:
            return
        if not _NO_SINGLE_COMMIT.search(result):
            raise _failure(result)
        self._fetch_all(url, source)

    def _fetch_tag(self, url: str, source: GitSource) -> bool:
        """Fetch by the tag, which every server gives; returns whether it brought the commit."""
        result = self._run(url, [f"+refs/tags/{source.tag}:refs/full/tag"], "--depth=1")
        if result is None:
            self._accept(source, "refs/full/tag")
            return True
        if _LACKS_TAG.search(result):
            if source.key is not None:
                raise TagError(f"has no tag {source.tag}")
        elif not _NO_SINGLE_COMMIT.search(result):
            raise _failure(result)
        return False

    def _fetch_all(self, url: str, source: GitSource) -> None:
        """Fetch all branches and tags, as the server gives no single commit, and look for it there."""
        log.info(f"{source.name}: {url} gives no single commits; fetching all of it")
        specs = ("+refs/heads/*:refs/full/heads/*", "+refs/tags/*:refs/full/tags/*")
        result = self._run(url, specs, "--prune", "--update-shallow")
        if result is not None:
            raise _failure(result)
        tag = f"refs/full/tags/{source.tag}"
        if source.tag is not None and self._resolve(tag) is not None:
            self._accept(source, tag)
        elif source.key is not None:
            raise TagError(f"has no tag {source.tag}")
        elif self._resolve(f"{source.commit}^{{commit}}") is None:
            raise LacksCommitError(f"does not have the commit {source.commit}")
        else:
            self._call("update-ref", pin(source), source.commit)

    def _accept(self, source: GitSource, ref: str) -> None:
        """Keep the commit that a fetched tag points to, if it is the pinned one."""
        found = self._resolve(f"{ref}^{{commit}}")
        if found != source.commit:
            raise TagError(f"its tag {source.tag} points to {found} instead")
        self._call("update-ref", _tag_pin(source), ref)
        self._call("update-ref", pin(source), source.commit)

    def verify_tag(self, source: GitSource, project: Path) -> None:
        """Judge the tag's signature; a bad one is forgotten, so that the next URL is asked for its own.

        Raises TagError, SignatureError, UsageError, ToolMissingError and DamagedMirrorError.
        """
        pin = _tag_pin(source)
        try:
            tag = self._resolve(pin)
            assert tag is not None
            if tag == source.commit:
                raise tags.SignatureError(f"its tag {source.tag} is not signed")
            tags.verify(self.objects.one(tag, "tag", str(source.tag)), source, project)
        except RefusedError:
            self._call("update-ref", "-d", pin)
            raise

    def discard(self) -> None:
        """Remove the mirror, which is damaged."""
        # Moved away first: a removal that is cut short must not leave half a mirror under its name.
        with scratch(self.git.root / "scratch", "damaged") as folder:
            self.folder.rename(folder / "mirror")
        make(self.git, self.folder)

    def _resolve(self, name: str) -> str | None:
        found = self._call("rev-parse", "--verify", "--quiet", "--end-of-options", name, any_status=True)
        return found.strip() if re.fullmatch(r"[0-9a-f]{40}\n", found) else None

    def _call(self, *argv: str, any_status: bool = False) -> str:
        expect = None if any_status else (0,)
        return self.git.call(*argv, folder=self.folder, expect=expect, lock=self.lock)

    def _run(self, url: str, specs: Sequence[str], *options: str) -> str | None:
        """Run git fetch; returns None where it was fine, and what git said where not."""
        result = self.git.transfer(
            *("fetch", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--progress"),
            *(*options, "--", url, *specs),
            folder=self.folder,
            lock=self.lock,
            grown=self._grown,
        )
        return None if result.status == 0 else reason(result.output)

    def _grown(self) -> int:
        """How many bytes of packs there are, unfinished ones included."""
        total = 0
        with contextlib.suppress(OSError):
            for path in (self.folder / "objects" / "pack").iterdir():
                total += path.stat().st_size
        return total


def pin(source: GitSource) -> str:
    """The reference that keeps a source's commit in its mirror."""
    return f"refs/pins/{source.commit}/commit"


def _tag_pin(source: GitSource) -> str:
    return f"refs/pins/{source.commit}/tags/{source.tag}"


def _failure(said: str) -> RefusedError | TransientError:
    if _LACKS_COMMIT.search(said):
        return LacksCommitError("does not have the commit")
    return RefusedError(said) if _NO_REPOSITORY.search(said) else TransientError(said)


@contextlib.contextmanager
def locked(git: Git, source: GitSource) -> Iterator[Mirror]:
    """Give the mirror of a source's repository, which is made on first use; others wait.

    Raises CancelledError where ``git.stop`` was set while waiting.
    """
    name = hashlib.sha256(source.urls[0].encode()).hexdigest()
    folder = git.root / "git" / f"{name}.git"
    locks = git.root / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    # A lock of the kernel's whose descriptor every git inherits: one that outlives its killed starter
    # for a moment keeps the next process out.
    fd = os.open(locks / f"git-{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        wait(fd, source.name, git.stop.is_set)
        git.configure()
        mirror = Mirror(git, folder, fd)
        if not folder.is_dir():
            make(git, folder)
        else:
            tidy(folder)
            if not mirror.is_sound():
                log.warn(f"The repository {folder} is damaged, and is made anew.")
                mirror.discard()
        yield mirror
    finally:
        os.close(fd)


def wait(fd: int, name: str, cancelled: Callable[[], bool]) -> None:
    """Wait for a lock on a descriptor, and say so once; ``name`` is what others are at work on."""
    told = False
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if not told:
            log.info(f"waiting for another process that works on {name}")
            told = True
        if cancelled():
            raise CancelledError(f"Gave up waiting for {name}.")
        time.sleep(_POLL)


def make(git: Git, folder: Path) -> None:
    """Make an empty bare repository, which gets its name when it is whole."""
    with scratch(git.root / "scratch", "git") as temporary:
        new = temporary / "new.git"
        git.call("init", "--quiet", "--bare", "--template=", "--object-format=sha1", os.fspath(new))
        folder.parent.mkdir(parents=True, exist_ok=True)
        new.rename(folder)


def tidy(folder: Path) -> None:
    """Remove what a killed git left: lock files, which would stop the next one, and halves of packs."""
    for path in (*folder.glob("*.lock"), *(folder / "refs").rglob("*.lock")):
        path.unlink(missing_ok=True)
    objects = folder / "objects"
    for path in (*objects.glob("tmp_*"), *objects.glob("incoming-*"), *(objects / "pack").glob("tmp_*")):
        if path.is_dir():
            remove_tree(path)
        else:
            path.unlink(missing_ok=True)


__all__ = ["LacksCommitError", "Mirror", "locked", "make", "pin", "tidy", "wait"]
