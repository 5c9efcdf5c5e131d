"""What nights watch: a release, the branch that it follows, and where their history is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline import evidence, files
from pipeline.nightly.book import FILE, Book
from pipeline.nightly.commands import PROGRAM
from pipeline.release import Release
from pipeline.settings import Settings

HEARTBEAT = "heartbeat"
"""The file whose time says when a night last began, went on or ended."""
NIGHTS = "nights"
RECORD = "night.json"
DIFFERENCE = "packages.diff"
"""A night's file that says how its packages differ from the last good ones."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What a night needs.

    ``release`` is as its file has it, ``branch`` what is followed. ``program`` runs the pipeline's commands,
    whose words come after it. ``clock`` tells the time, in UTC. ``host``: there is an image of a host that
    packages can be installed on.
    """

    settings: Settings
    release: Release
    branch: str
    program: Sequence[str] = PROGRAM
    clock: Callable[[], datetime] = evidence.now
    host: bool = False

    @property
    def folder(self) -> Path:
        """Where the release's builds, nights and history are."""
        return self.settings.artifacts_folder / self.release.name

    @property
    def book(self) -> Book:
        """The history."""
        return Book(self.folder / FILE, self.release.name)

    def night_folder(self, number: int) -> Path:
        """Where a night's logs and results are."""
        return self.folder / NIGHTS / str(number)

    def beat(self) -> None:
        """Note the time, so that others see that nights take place."""
        files.write_text(self.folder / HEARTBEAT, f"{self.clock().isoformat()}\n")
