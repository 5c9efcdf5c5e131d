"""What an engine runs, the limits it keeps to, and the interface that every engine has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from pipeline.errors import FailureError, HostError
from pipeline.image.assembly import Image

WORKSPACE = "/build"
"""The folder that a job finds its inputs in, writes to, and starts in: the same under every engine."""

UID = 1000
"""The unprivileged user (and group) that a job runs as."""

HOSTNAME = "xen-build"


class JobFailedError(FailureError):
    """The command ended with a status other than 0."""


class OutOfMemoryError(HostError):
    """The command was killed because it used more memory than its limit."""


class OutputError(FailureError):
    """The command left something in its output folder that is neither a file of one name nor a folder."""

    def __init__(self, path: str, hint: str | None = None) -> None:
        super().__init__(f"A job may leave plain files and folders only, but {path!r} is neither.", hint)


class EngineError(HostError):
    """The engine itself failed: it does not answer, or refuses what a job needs."""


@dataclass(frozen=True)
class Limits:
    """What a job may use: bytes of memory, processes, open files, seconds of wall clock."""

    memory: int = 6 << 30
    processes: int = 4096
    # fakeroot walks all possible descriptors; at the usual 2^30 of containers that takes minutes.
    files: int = 4096
    seconds: float = 4 * 3600.0


@dataclass(frozen=True)
class Job:
    """One command in an image.

    ``inputs`` maps names in the workspace (with ``/`` for sub-folders) to files on this host; the job
    gets copies of its own. ``output`` names the workspace's folder whose content is wanted back.
    """

    command: tuple[str, ...]
    inputs: Mapping[str, Path] = field(default_factory=dict)
    output: str = "output"
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()

    # The whole environment of every job, so that nothing of the caller's reaches the bytes.
    BASE_ENVIRONMENT: ClassVar[Mapping[str, str]] = {
        "HOME": WORKSPACE,
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "SHELL": "/bin/bash",
        "TERM": "dumb",
        "TMPDIR": "/tmp",  # noqa: S108 - inside the job, where it is private
        "TZ": "UTC",
        "USER": "builder",
    }

    def full_environment(self) -> dict[str, str]:
        """The environment that the command sees."""
        return {**self.BASE_ENVIRONMENT, **self.environment}


class Engine(Protocol):
    """Runs jobs. However a run ends, nothing of it stays behind: no process, no container, no file."""

    name: ClassVar[str]

    def run(self, job: Job, image: Image, output: Path, on_line: Callable[[str], None]) -> None:
        """Run a job to its end and put what it left in its output folder into ``output``.

        ``output`` is an empty folder; ``on_line`` gets each line of the command's output. What the job
        left is hostile: nothing but regular files and folders is taken, so that no link or device can
        make a later step read or write anything else. Raises JobFailedError, OutputError,
        TimeLimitError, OutOfMemoryError, EngineError.
        """
        ...
