"""Docker as an engine, local or remote, through its SDK; files travel as archives, never as bind mounts."""

from __future__ import annotations

import collections
import contextlib
import functools
import hashlib
import io
import os
import socket
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, ClassVar

import docker
import docker.errors
import requests

from pipeline import log
from pipeline.engine import guard
from pipeline.engine.job import (
    CACHE,
    WORKSPACE,
    Circumstances,
    EngineError,
    Job,
    JobFailedError,
    OutOfMemoryError,
    OutputError,
    check_path,
)
from pipeline.errors import TimeLimitError

if TYPE_CHECKING:
    from docker.models.containers import Container

    from pipeline.image.assembly import Image

_LABEL = "xen-aur-pipeline"
_OWNER = "xen-aur-pipeline.owner"
_UID = Circumstances.uid
_TIMEOUT = 600
"""Seconds that one call may take: loading an image and moving a workspace are single calls."""


@functools.cache
def _client() -> docker.DockerClient:
    return docker.from_env(timeout=_TIMEOUT)


def answers() -> bool:
    """Whether a docker engine answers, where DOCKER_HOST or the default socket says."""
    try:
        client = docker.from_env(timeout=5)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except (docker.errors.DockerException, requests.exceptions.RequestException):
        return False


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (docker.errors.DockerException, requests.exceptions.RequestException) as e:
        raise EngineError(
            f"The docker engine failed: {e}.", hint="`docker info` shows whether it answers."
        ) from e


@dataclass(frozen=True)
class Docker:
    """Runs jobs as containers of a docker engine."""

    name: ClassVar[str] = "docker"
    adaptable: ClassVar[bool] = False

    def run(self, job: Job, image: Image, output: Path, on_line: Callable[[str], None]) -> None:
        """Run a job; see Engine.run."""
        with _explained():
            _sweep()
            _load(image)
            with _container(job, image) as container:
                _put(container, job)
                _execute(container, job, image, on_line)
                _get(container, job, output)


@dataclass(frozen=True)
class _Owner:
    """The process that a container or volume belongs to, in its label: words parted by spaces."""

    host: str
    boot: str
    namespace: str
    pid: str
    start: str

    @classmethod
    def me(cls) -> _Owner:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        pid = str(os.getpid())
        return cls(socket.gethostname(), boot, os.readlink("/proc/self/ns/pid"), pid, _start_time(pid))

    def __str__(self) -> str:
        return " ".join((self.host, self.boot, self.namespace, self.pid, self.start))

    def is_dead(self, me: _Owner) -> bool:
        """Whether it is certain that the process is gone; an engine may serve several hosts."""
        if self.host != me.host:
            return False
        if self.boot != me.boot:
            return True
        return self.namespace == me.namespace and _start_time(self.pid) != self.start


def _start_time(pid: str) -> str:
    """Return when a process started (proc(5), field 22 of stat), so that no other one is taken for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19]
    except OSError:
        return ""


def _sweep() -> None:
    """Remove what killed processes left in the engine: it cannot know that nobody waits any more."""
    client = _client()
    me = _Owner.me()

    def is_dead(label: str | None) -> bool:
        words = (label or "").split()
        return len(words) == len(fields(_Owner)) and _Owner(*words).is_dead(me)

    for container in client.containers.list(all=True, filters={"label": _OWNER}, ignore_removed=True):
        if is_dead(container.labels.get(_OWNER)):
            with contextlib.suppress(docker.errors.NotFound):
                container.remove(force=True, v=True)
    for volume in client.volumes.list(filters={"label": _OWNER}):
        if is_dead((volume.attrs.get("Labels") or {}).get(_OWNER)):
            with contextlib.suppress(docker.errors.NotFound):
                volume.remove(force=True)


def _load(image: Image) -> None:
    client = _client()
    try:
        client.images.get(image.id)
    except docker.errors.ImageNotFound:
        layer = image.layer()
        with log.step(f"Loading image {image.name} into docker"):
            # The SDK sends any iterator of bytes in chunks, though its types do not say so.
            client.images.load(image.docker.archive(layer))  # type: ignore[arg-type]
            try:
                client.images.get(image.id)
            except docker.errors.ImageNotFound as e:
                raise EngineError(
                    f"The docker engine gave image {image.name} another id than {image.id}.",
                    hint="Engines with the containerd image store count ids differently; switch it off.",
                ) from e


@contextlib.contextmanager
def _container(job: Job, image: Image) -> Iterator[Container]:
    """Create a container with a volume of its own for the workspace; remove both, whatever happens."""
    client = _client()
    labels = {_LABEL: "job", _OWNER: str(_Owner.me())}
    volume = client.volumes.create(labels=labels)
    try:
        limits = job.limits
        container = client.containers.create(
            image.id,
            guard.command(job, image.root),
            environment=job.full_environment(),
            hostname=job.circumstances.hostname,
            user=f"{_UID}:{_UID}",
            working_dir=WORKSPACE,
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mem_limit=limits.memory,
            memswap_limit=limits.memory,
            pids_limit=limits.processes,
            ulimits=[
                docker.types.Ulimit(name="nofile", soft=limits.files, hard=limits.files),
                docker.types.Ulimit(name="fsize", soft=limits.disk, hard=limits.disk),
                docker.types.Ulimit(name="core", soft=0, hard=0),
            ],
            tmpfs={"/tmp": "exec,mode=1777", "/run": f"uid={_UID},gid={_UID}"},  # noqa: S108 - the container's own
            volumes={volume.name: {"bind": WORKSPACE, "mode": "rw"}, **_cache(job)},
            init=True,
            labels=labels,
        )
        try:
            yield container
        finally:
            container.remove(force=True, v=True)
    finally:
        volume.remove(force=True)


def _cache(job: Job) -> dict[str, dict[str, str]]:
    """The volume that stands for the job's cache in this engine, which may be another host's."""
    if job.cache is None:
        return {}
    name = hashlib.sha256(os.fspath(job.cache).encode()).hexdigest()[:16]
    volume = _client().volumes.create(f"{_LABEL}-cache-{name}", labels={_LABEL: "cache"})
    return {volume.name: {"bind": CACHE, "mode": "rw"}}


def _put(container: Container, job: Job) -> None:
    """Fill the workspace: a tar whose members belong to the builder."""
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            folders = {"."} | ({PurePosixPath(CACHE).name} if job.cache else set())
            folders |= {str(p) for name in (*job.all_inputs, f"{job.output}/x") for p in _parents(name)}
            for folder in sorted(folders):
                tar.addfile(_member(folder, tarfile.DIRTYPE, 0o755))
            for name, path in job.all_inputs.items():
                info = _member(name, tarfile.REGTYPE, path.stat().st_mode & 0o777)
                info.size = path.stat().st_size
                with path.open("rb") as source:
                    tar.addfile(info, source)
        file.seek(0)
        container.put_archive(WORKSPACE, file)


def _parents(name: str) -> list[PurePosixPath]:
    return [p for p in PurePosixPath(name).parents if str(p) != "."]


def _member(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = mode
    info.uid = info.gid = _UID
    return info


def _execute(container: Container, job: Job, image: Image, on_line: Callable[[str], None]) -> None:
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        with contextlib.suppress(docker.errors.APIError):
            container.kill()

    # Attached before the start, so that the first lines are not lost.
    stream = container.attach(stream=True, logs=True, stdout=True, stderr=True)
    watchdog = threading.Timer(job.limits.seconds, expire)
    container.start()
    watchdog.start()
    told = guard.Told(on_line, guarded=guard.command(job, image.root) != job.argv)
    try:
        for line in _lines(stream):
            told.line(line)
        status = int(container.wait()["StatusCode"])
    finally:
        watchdog.cancel()
    if expired.is_set():
        raise TimeLimitError(f"{job.command[0]} did not end within {job.limits.seconds:g} s.", hint=told.tail)
    container.reload()
    if container.attrs["State"]["OOMKilled"]:
        raise OutOfMemoryError(
            f"{job.command[0]} used more than its {log.size(job.limits.memory)} of memory.",
            hint=told.tail,
        )
    told.judge(job.limits.disk)
    if status != 0:
        raise JobFailedError(
            f"{job.command[0]} ended with exit status {status} in image {image.name}.", hint=told.tail
        )


def _lines(stream: Any) -> Iterator[str]:
    """Cut the engine's chunks, which end anywhere, into lines."""
    rest = b""
    for chunk in stream:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


class _Reader(io.RawIOBase):
    """A file object over the chunks of an answer."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = next(self._chunks, b"")
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _get(container: Container, job: Job, output: Path) -> None:
    try:
        chunks, _ = container.get_archive(f"{WORKSPACE}/{job.output}")
    except docker.errors.NotFound as e:
        raise OutputError(job.output) from e
    given = iter(chunks)
    stream: IO[bytes] = io.BufferedReader(_Reader(given), 1 << 20)
    top = PurePosixPath(job.output).name
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                name = PurePosixPath(member.name).relative_to(top)
                check_path(output, name)
                if not (member.isdir() or (member.isreg() and str(name) != ".")):
                    raise OutputError(member.name)
                if str(name) != ".":
                    # The data filter (PEP 706) refuses paths that lead out of the folder.
                    tar.extract(member.replace(name=str(name), deep=False), output, filter="data")
    except (tarfile.TarError, ValueError) as e:
        raise EngineError(f"The docker engine gave a damaged archive: {e}.") from e
    except (OutputError, OSError):
        # An engine that is still giving does not let go of the container.
        collections.deque(given, maxlen=0)
        raise
