"""The embedded engine: Linux namespaces by bubblewrap(1); no daemon, no set-up."""

from __future__ import annotations

import json
import os
import select
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, ClassVar

from pipeline.engine import guard
from pipeline.engine.job import (
    CACHE,
    WORKSPACE,
    Circumstances,
    EngineError,
    Job,
    JobFailedError,
    Limits,
    OutputError,
    check_path,
)
from pipeline.errors import TimeLimitError
from pipeline.files import below, write_text
from pipeline.run import describe_status, run
from pipeline.scratch import scratch

if TYPE_CHECKING:
    from pipeline.image.assembly import Image

_NAMESPACES = (
    *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--die-with-parent", "--new-session"),
)
_LAST = 30.0
"""Seconds that killed processes may take to end: one in the middle of a write to a slow disk takes some."""


@dataclass(frozen=True)
class Bubblewrap:
    """Runs jobs in an image's unpacked root.

    ``scratch`` is where workspaces are made; it needs the space of a whole build.
    """

    scratch: Path
    name: ClassVar[str] = "bubblewrap"
    adaptable: ClassVar[bool] = True

    def run(self, job: Job, image: Image, output: Path, on_line: Callable[[str], None]) -> None:
        """Run a job; see Engine.run."""
        image.verify()
        self.run_in(job, image.root, image.name, output, on_line)

    def run_in(self, job: Job, root: Path, name: str, output: Path, on_line: Callable[[str], None]) -> None:
        """Run a job in an unpacked root, which messages call image ``name``; see Engine.run."""
        with self._workspace(job) as workspace:
            command = guard.command(job, root)
            told = guard.Told(on_line, guarded=command != job.argv)
            status = self._start(job, root, workspace, command, told)
            told.judge(job.limits.disk)
            if status < 0:
                # A job that is killed ends it with 128 and the signal's number.
                raise EngineError(f"bwrap itself ended with {describe_status(status)}.", hint=told.tail)
            if status != 0:
                raise JobFailedError(
                    f"{job.command[0]} ended with {describe_status(status)} in image {name}.", hint=told.tail
                )
            _take(workspace, job, output)

    def _start(self, job: Job, root: Path, workspace: Path, command: list[str], told: guard.Told) -> int:
        """Run a command in a sandbox to its end; returns the status. Raises TimeLimitError."""
        with _to_the_last() as info:
            sandbox = _sandbox(root, workspace, self._passwd(root, job), job, info)
            try:
                return run(
                    [*_limits(job.limits), *sandbox, *command],
                    env={"PATH": os.environ["PATH"]},
                    on_line=told.line,
                    timeout=job.limits.seconds,
                    expect=None,
                    pass_fds=(info,),
                ).status
            except TimeLimitError as e:
                raise TimeLimitError(e.message, hint=told.tail) from e

    @contextmanager
    def _workspace(self, job: Job) -> Iterator[Path]:
        with scratch(self.scratch, "job") as folder:
            workspace = folder / "workspace"
            (workspace / job.output).mkdir(parents=True)
            for name, source in job.all_inputs.items():
                target = workspace / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
            for path in (workspace, *workspace.rglob("*")):
                if path.is_dir():
                    path.chmod(0o755)  # whatever this process's umask is
            uid = job.circumstances.uid
            if os.geteuid() == 0:
                for path in (workspace, *workspace.rglob("*")):
                    os.chown(path, uid, uid, follow_symlinks=False)
            yield workspace

    def _passwd(self, root: Path, job: Job) -> Path | None:
        """A table of users that knows the job's, where that is not the image's builder."""
        who = job.circumstances
        if (who.user, who.uid) == (Circumstances.user, Circumstances.uid):
            return None
        path = self.scratch / f"passwd-{who.user}-{who.uid}"
        lines = (root / "etc/passwd").read_text().splitlines()
        others = [line for line in lines if not line.startswith("builder:")]
        line = f"{who.user}:x:{who.uid}:{who.uid}::{WORKSPACE}:/usr/sbin/nologin"
        write_text(path, "\n".join([*others, line]) + "\n")
        return path


@contextmanager
def _to_the_last() -> Iterator[int]:
    """Give the descriptor for bwrap's --info-fd, and wait afterwards until no process of the sandbox is left.

    bwrap ends as soon as the job's first process has: the others are about to be killed with their namespace,
    whose own first process is gone only when they all are (pid_namespaces(7)).
    """
    reading, writing = os.pipe()
    first: list[int] = []

    def note() -> None:
        with open(reading, "rb") as file, suppress(OSError, ValueError, KeyError):
            # Now, while it is alive: a number may later be another process's.
            first.append(os.pidfd_open(json.loads(_document(file))["child-pid"]))

    noting = threading.Thread(target=note, daemon=True)
    noting.start()
    try:
        yield writing
    finally:
        os.close(writing)
        noting.join()
        for pidfd in first:
            gone, _, _ = select.select([pidfd], [], [], _LAST)
            os.close(pidfd)
            if not gone:
                raise EngineError("Processes of the job do not end, though they were killed.")


def _document(file: BinaryIO) -> bytes:
    """Read up to the end of a JSON object, which comes long before that of the file."""
    text = b""
    while not text.endswith(b"}\n") and (line := file.readline()):
        text += line
    return text


def probe() -> None:
    """Start a sandbox with all that jobs are given, in this host's own root; raises CommandError."""
    mounts = ("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp")  # noqa: S108
    uid = str(Circumstances.uid)
    run(["bwrap", *_NAMESPACES, "--clearenv", *mounts, *_privileges(uid), "--", "/bin/true"], timeout=20)


def _take(workspace: Path, job: Job, output: Path) -> None:
    """Move what the job left to ``output``; no process of the job is alive to change it meanwhile."""
    left = workspace
    for part in PurePosixPath(job.output).parts:
        left /= part
        if not os.path.lexists(left) or not stat.S_ISDIR(left.lstat().st_mode):
            raise OutputError(job.output)
        left.chmod(0o755)
    for path in below(left):
        for top in (left, output):
            check_path(top, path.relative_to(left))
        info = path.lstat()
        if stat.S_ISDIR(info.st_mode):
            path.chmod(0o755)
        elif stat.S_ISREG(info.st_mode) and info.st_nlink == 1:
            path.chmod(0o644 | info.st_mode & 0o111)
        else:
            raise OutputError(os.fspath(path.relative_to(workspace)))
        if os.geteuid() == 0:
            os.chown(path, 0, 0, follow_symlinks=False)
    for path in left.iterdir():
        shutil.move(path, output / path.name)


def _limits(limits: Limits) -> list[str]:
    return [
        "prlimit",
        f"--as={limits.memory}",
        f"--nproc={limits.processes}",
        f"--nofile={limits.files}",
        f"--fsize={limits.disk}",
        "--core=0",
        "--",
    ]


def _sandbox(root: Path, workspace: Path, passwd: Path | None, job: Job, info: int) -> list[str]:
    size = str(job.limits.memory // 2)
    # fmt: off
    argv = [
        "bwrap", *_NAMESPACES,
        "--info-fd", str(info),
        "--hostname", job.circumstances.hostname,
        "--ro-bind", os.fspath(root), "/",
        "--proc", "/proc",
        "--dev", "/dev",
        # What lies there is memory, which no other limit counts.
        "--size", size, "--perms", "1777", "--tmpfs", "/dev/shm",  # noqa: S108 - the job's own
        "--size", size, "--perms", "1777", "--tmpfs", "/tmp",  # noqa: S108 - the job's own
        "--size", size, "--perms", "1777", "--tmpfs", "/run",  # systemd-analyze wants to write there
        "--bind", os.fspath(workspace), WORKSPACE,
        "--chdir", WORKSPACE,
        "--clearenv",
    ]
    # fmt: on
    if job.cache is not None:
        argv += ["--bind", os.fspath(_lend(job.cache, job)), CACHE]
    if passwd is not None:
        argv += ["--ro-bind", os.fspath(passwd), "/etc/passwd"]
    for key, value in job.full_environment().items():
        argv += ["--setenv", key, value]
    return [*argv, *_privileges(str(job.circumstances.uid)), "--"]


def _lend(cache: Path, job: Job) -> Path:
    """Let the job's user write to a cache."""
    cache.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(cache, job.circumstances.uid, job.circumstances.uid)
    return cache


def _privileges(uid: str) -> list[str]:
    """Become the unprivileged user, without any capability."""
    if os.geteuid() != 0:
        return ["--unshare-user", "--uid", uid, "--gid", uid, "--cap-drop", "ALL"]
    # Started by root, a user namespace would map the builder to root on the host. A real uid is safer,
    # and RLIMIT_NPROC holds only for those. setpriv (util-linux) gives the two capabilities up again.
    return [
        *(
            "--cap-drop",
            "ALL",
            "--cap-add",
            "CAP_SETUID",
            "--cap-add",
            "CAP_SETGID",
            "--cap-add",
            "CAP_SETPCAP",
        ),
        "--",
        *("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"),
        *("--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"),
    ]
