"""Stores that have what a build needs and nothing compiled, so that a benchmark can build anew."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.cli import ProjectConfig
from pipeline.settings import Settings
from pipeline.version import PROJECT

_BORROWED = ("images", "sha256", "locks", "git")


def settings(release: str) -> Settings:
    """The settings of whoever runs the benchmark, with a release as the default one."""
    config = ProjectConfig(project_location=PROJECT)
    config.load_project()
    config.load_shell_env()
    return Settings.read({**config.pipeline, "release": release})


def shared() -> Path:
    """The store of whoever runs the benchmark."""
    return settings("").open_store.root


def environment(folder: Path, *more: str) -> dict[str, str]:
    """Make a store in a new folder that has the shared one's sources and images, and ``more`` of it.

    Returns the environment in which the project's commands build by bubblewrap with that store, into
    artifacts beside it.
    """
    store = folder / "store"
    store.mkdir(parents=True)
    for name in (*_BORROWED, *more):
        (store / name).symlink_to(shared() / name)
    return {
        **os.environ,
        # Nobody here can count what docker's containers use.
        "INVOKE_PIPELINE_ENGINE": "bubblewrap",
        "INVOKE_PIPELINE_STORE": str(store),
        "INVOKE_PIPELINE_ARTIFACTS": str(folder / "artifacts"),
    }
