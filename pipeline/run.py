"""The one function that runs programs on this host."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import CommandError, TimeLimitError, ToolMissingError

TAIL_LINES = 50
"""How many last lines of a program's output a failure shows."""


@dataclass(frozen=True)
class Result:
    """How a program ended.

    ``output`` is the last ``TAIL_LINES`` lines of standard output and standard error together where
    the lines were streamed, and the whole of it where they were not.
    """

    status: int
    output: str


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: bytes | None = None,
    on_line: Callable[[str], None] | None = None,
    timeout: float | None = None,
    expect: Sequence[int] | None = (0,),
    merge_stderr: bool = True,
    pass_fds: Sequence[int] = (),
) -> Result:
    """Run a program to its end and return how it ended.

    ``env`` replaces the environment. ``on_line`` gets each line of output as it comes. ``timeout`` is in
    seconds. ``expect`` lists the exit statuses that are not errors; None accepts any. However this function
    is left (Ctrl-C and a kill of this process included), no process of the program's group stays behind.

    Raises ToolMissingError, CommandError or TimeLimitError.
    """
    args = [os.fspath(arg) for arg in argv]
    try:
        process = subprocess.Popen(
            args,
            cwd=cwd,
            env=None if env is None else dict(env),
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge_stderr else subprocess.PIPE,
            start_new_session=True,
            umask=0o022,  # what a program writes must not depend on who runs it
            pass_fds=pass_fds,
        )
    except FileNotFoundError as e:
        if cwd is not None and not cwd.is_dir():
            raise
        raise ToolMissingError(
            f"{args[0]} is not installed.", hint="./inv setup installs what this host lacks."
        ) from e
    with _no_orphans(process):
        if on_line is None:
            output = _collect(process, args, input, timeout)
        else:
            output = _stream(process, args, on_line, timeout)
    status = process.returncode
    if expect is not None and status not in expect:
        raise CommandError(
            f"{Path(args[0]).name} ended with {describe_status(status)}.",
            hint=f"The command was: {shlex.join(args)}\n{tail(output)}".rstrip(),
        )
    return Result(status, output)


@contextlib.contextmanager
def running(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str],
    output: Path,
    stdin: BinaryIO | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Have a program run in the background; it is asked to end, and after ten seconds made to.

    All that it says goes to the end of the file ``output``. ``stdin`` is a file for it
    to read, from its place on.
    """
    with output.open("ab") as file:
        process = subprocess.Popen(
            [os.fspath(arg) for arg in argv],
            env=dict(env),
            stdin=stdin or subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            umask=0o022,
        )
    with _no_orphans(process):
        try:
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)


@contextlib.contextmanager
def _no_orphans(process: subprocess.Popen[bytes]) -> Iterator[None]:
    # kill -9 gives this process no chance to clean up. The guard's input ends with it.
    with subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _; kill -s KILL -- "-$1"', "guard", str(process.pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    ) as guard:
        try:
            yield
        finally:
            guard.kill()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _collect(
    process: subprocess.Popen[bytes], args: list[str], input: bytes | None, timeout: float | None
) -> str:
    try:
        out, err = process.communicate(input, timeout=timeout)
    except subprocess.TimeoutExpired as e:
        raise TimeLimitError(f"{Path(args[0]).name} did not end within {timeout:g} s.") from e
    if process.returncode != 0 and err:
        out += err
    return out.decode(errors="replace")


def _stream(
    process: subprocess.Popen[bytes],
    args: list[str],
    on_line: Callable[[str], None],
    timeout: float | None,
) -> str:
    assert process.stdout is not None
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    watchdog = threading.Timer(timeout or 0, expire)
    if timeout is not None:
        watchdog.start()
    last: deque[str] = deque(maxlen=TAIL_LINES)
    try:
        for raw in io.TextIOWrapper(process.stdout, errors="replace", encoding="utf-8", newline="\n"):
            line = raw.rstrip("\n")
            last.append(line)
            on_line(line)
        process.wait()
    finally:
        watchdog.cancel()
    if expired.is_set():
        raise TimeLimitError(f"{Path(args[0]).name} did not end within {timeout:g} s.", hint="\n".join(last))
    return "\n".join(last)


def describe_status(status: int) -> str:
    """Say what a subprocess's return code means: an exit status, or the signal that killed it."""
    if status < 0:
        return f"signal {signal.Signals(-status).name}"
    return f"exit status {status}"


def tail(output: str, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a program's output."""
    return "\n".join(output.splitlines()[-lines:])
