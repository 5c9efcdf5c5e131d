"""Which engine a run uses."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pipeline import log
from pipeline.engine.bubblewrap import Bubblewrap
from pipeline.engine.job import Engine
from pipeline.errors import UsageError


class EngineChoice(StrEnum):
    """The setting ``engine``."""

    AUTO = "auto"
    DOCKER = "docker"
    BUBBLEWRAP = "bubblewrap"

    @classmethod
    def parse(cls, text: str) -> EngineChoice:
        """Read the setting; raises UsageError for anything else."""
        try:
            return cls(text)
        except ValueError as e:
            known = ", ".join(cls)
            raise UsageError(f"There is no engine {text!r}.", hint=f"Engines: {known}.") from e

    def open(self, scratch: Path) -> Engine:
        """Return the engine, and say which it is; ``auto`` takes docker where an engine answers."""
        if self is EngineChoice.BUBBLEWRAP:
            return Bubblewrap(scratch)
        # The docker SDK takes 0.2 s to import, which only those who use it should pay.
        from pipeline.engine import docker

        if self is EngineChoice.DOCKER:
            return docker.Docker()
        if docker.answers():
            log.info("engine: docker (an engine answers)")
            return docker.Docker()
        log.info("engine: bubblewrap (no docker engine answers)")
        return Bubblewrap(scratch)
