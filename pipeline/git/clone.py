"""Clones as makepkg wants them, of commits that the store's mirrors have: for a build without network."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import UsageError
from pipeline.git.command import Git
from pipeline.git.mirror import locked, pin
from pipeline.run import run
from pipeline.scratch import scratch
from pipeline.source import GitSource
from pipeline.store import Store


def pack(source: GitSource, store: Store, target: Path) -> Path:
    """Write a tar of a bare clone to ``target``, in a folder called as the source; returns ``target``.

    The clone has the pinned commit alone, as the end of its only branch, and says that it is of the source's
    first URL. Raises UsageError where the store has no mirror with that commit, only what was made of it.
    """
    git = Git(store.root)
    with scratch(store.root / "scratch", "clone") as folder, locked(git, source) as mirror:
        if not mirror.has(source):
            raise UsageError(
                f"The store has {source.name}'s files, but no repository with its commit.",
                hint="--no-build pushes without building the folder as an AUR user would.",
            )
        clone = folder / source.name
        git.call("init", "--quiet", "--bare", "--template=", "--initial-branch=master", f"{clone}")
        commit = f"{pin(source)}:refs/heads/master"
        git.call(
            "fetch", "--quiet", "--depth=1", "--no-tags", f"file://{mirror.folder}", commit, folder=clone
        )
        git.call("config", "remote.origin.url", source.urls[0], folder=clone)
        run(["tar", "--create", "--file", target, "--directory", folder, source.name])
    return target
