"""What an engine runs, the limits it keeps to, and the interface that every engine has."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, ClassVar, Protocol

from pipeline.errors import FailureError, HostError
from pipeline.files import PATH_MAX

if TYPE_CHECKING:
    from pipeline.image.assembly import Image

WORKSPACE = "/build"
"""The folder that a job finds its inputs in, writes to, and starts in: the same under every engine."""
CACHE = f"{WORKSPACE}/ccache"
"""Where a job finds its cache."""


class JobFailedError(FailureError):
    """The command ended with a status other than 0."""


class OutOfMemoryError(HostError):
    """The command was killed because it used more memory than its limit."""


class DiskQuotaError(HostError):
    """The command was killed because its files took more than its quota, or nearly all of the disk."""


class NetworkAttemptError(FailureError):
    """The command was killed because a process of it tried to use the network."""


_DEPTH = 200
"""Folders in one another that a job may leave; what goes through them is called once for each."""
_SHOWN = 100
"""Letters of a path that a message shows."""


class OutputError(FailureError):
    """The command left something in its output folder that is neither a file of one name nor a folder."""

    def __init__(self, path: str, hint: str | None = None) -> None:
        if len(path) > _SHOWN:
            path = f"{path[:_SHOWN]}..."
        super().__init__(
            f"A job may leave plain files and folders only, whose paths can be used; {path!r} is none.", hint
        )


def check_path(output: Path, path: PurePath) -> None:
    """Raise OutputError for a path below a job's output that nobody could do anything with in ``output``."""
    if len(os.fsencode(output / path)) >= PATH_MAX or len(path.parts) > _DEPTH:
        raise OutputError(os.fspath(path))


class EngineError(HostError):
    """The engine itself failed: it does not answer, or refuses what a job needs."""


@dataclass(frozen=True)
class Limits:
    """What a job may use: bytes of memory and disk, processes, open files, seconds of wall clock."""

    memory: int = 6 << 30
    disk: int = 20 << 30
    processes: int = 4096
    # fakeroot walks all possible descriptors; at the usual 2^30 of containers that takes minutes.
    files: int = 4096
    seconds: float = 4 * 3600.0


@dataclass(frozen=True)
class Circumstances:
    """What surrounds a job and must not reach its bytes; these are the usual ones.

    ``user`` and ``uid`` are those that it runs as, and ``reversed_folders`` lists folders in another order
    than the file system's: both need an `Engine.adaptable` engine. ``environment`` and ``inputs`` are
    added to the job's own.
    """

    hostname: str = "xen-build"
    user: str = "builder"
    uid: int = 1000
    umask: int = 0o022
    reversed_folders: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, Path] = field(default_factory=dict)
    preload: str = ""


@dataclass(frozen=True)
class Job:
    """One command in an image.

    ``inputs`` maps names in the workspace (with ``/`` for sub-folders) to files on this host; the job
    gets copies of its own. ``output`` names the workspace's folder whose content is wanted back.
    ``cache`` is a folder of this host whose content jobs leave to each other, at CACHE.
    """

    command: tuple[str, ...]
    inputs: Mapping[str, Path] = field(default_factory=dict)
    output: str = "output"
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()
    circumstances: Circumstances = field(default_factory=Circumstances)
    cache: Path | None = None

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
        user = {"USER": self.circumstances.user}
        return {**self.BASE_ENVIRONMENT, **user, **self.environment, **self.circumstances.environment}

    @property
    def all_inputs(self) -> dict[str, Path]:
        """The job's inputs, and those of its circumstances."""
        return {**self.inputs, **self.circumstances.inputs}

    @property
    def argv(self) -> list[str]:
        """The command, started with the umask and the library that are asked for."""
        umask, preload = self.circumstances.umask, self.circumstances.preload
        if umask == Circumstances.umask and not preload:  # which engines give by themselves
            return list(self.command)
        # Not by the environment of the engine's own programs, which are not yet the job's user.
        script = f'umask {umask:o} && export LD_PRELOAD="$0" && exec "$@"'
        return ["/bin/sh", "-c", script, preload, *self.command]


class Engine(Protocol):
    """Runs jobs. However a run ends, nothing of it stays behind: no process, no container, no file."""

    name: ClassVar[str]

    adaptable: ClassVar[bool]
    """Whether it can run a job as another user, and with folders in another order."""

    def run(self, job: Job, image: Image, output: Path, on_line: Callable[[str], None]) -> None:
        """Run a job to its end and put what it left in its output folder into ``output``.

        ``output`` is an empty folder; ``on_line`` gets each line of the command's output. What the job
        left is hostile: nothing but regular files and folders is taken, so that no link or device can
        make a later step read or write anything else. Raises JobFailedError, OutputError,
        TimeLimitError, OutOfMemoryError, DiskQuotaError, NetworkAttemptError, EngineError.
        """
        ...
