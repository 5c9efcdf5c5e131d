"""How git is run: with a configuration of its own, without hooks, prompts or anybody's credentials."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import files
from pipeline.errors import CommandError
from pipeline.run import Result, run
from pipeline.scratch import scratch
from pipeline.store import CancelledError
from pipeline.transport import TransientError

# A file rather than `-c`: git takes safe.directory from no command line before 2.38, and hands command
# line settings on to no upload-pack.
_CONFIG = """\
[core]
\thooksPath = /dev/null
[gc]
\tauto = 0
[maintenance]
\tauto = false
[transfer]
\tfsckObjects = true
\tunpackLimit = 1
[fetch]
\trecurseSubmodules = false
[http]
\tlowSpeedLimit = 256
\tlowSpeedTime = 30
# What local clones may be made to do: belong to somebody else, and give commits that no branch ends in.
[safe]
\tdirectory = *
[uploadpack]
\tallowAnySHA1InWant = true
"""
# Mistakes of old tools in some projects' histories. None can change what a commit's tree holds, as
# pipeline.git.objects reads it.
_TOLERATED = (
    "badTimezone",
    "gitmodulesParse",
    "missingSpaceBeforeDate",
    "missingSpaceBeforeEmail",
    "zeroPaddedDate",
    "zeroPaddedFilemode",
)

_KEPT = ("PATH", "TMPDIR", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_POLL = 0.05
# What git adds below the reason, which may be ssh's.
_SAYS_NOTHING = (
    "fatal: Could not read from remote",
    "Please make sure you have",
    "and the repository exists",
)


def environment(home: Path) -> dict[str, str]:
    """Return the whole environment of every git; ``home`` holds its only configuration file."""
    kept = {*_KEPT, *_PROXIES, *(name.upper() for name in _PROXIES)}
    return {
        **{name: value for name, value in os.environ.items() if name in kept},
        "LC_ALL": "C",
        # Git before 2.32 does not know GIT_CONFIG_GLOBAL.
        "HOME": os.fspath(home),
        "XDG_CONFIG_HOME": os.fspath(home),
        "GIT_CONFIG_GLOBAL": os.fspath(home / ".gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        # All others are denied, ext:: among them, which runs commands.
        "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=10",
    }


@dataclass(frozen=True)
class Git:
    """Runs git for a store; ``root`` is the store's folder.

    ``silence`` is how many seconds a transfer may make no progress at all. ``stop`` ends transfers.
    """

    root: Path
    silence: float = 60
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def home(self) -> Path:
        """The folder of git's configuration."""
        return self.root / "git" / "home"

    def configure(self) -> None:
        """Write git's configuration."""
        text = _CONFIG + '[fetch "fsck"]\n' + "".join(f"\t{name} = ignore\n" for name in _TOLERATED)
        path = self.home / ".gitconfig"
        with contextlib.suppress(OSError):
            if path.read_text() == text:
                return
        files.write_text(path, text)

    def call(
        self,
        *argv: str,
        folder: Path | None = None,
        expect: Sequence[int] | None = (0,),
        lock: int | None = None,
        input: bytes | None = None,
    ) -> str:
        """Run a git command that needs no network, in the repository ``folder``; return its output.

        ``lock`` is a descriptor that git inherits, so that a lock on it lasts as long as git lives.
        Raises CommandError, ToolMissingError.
        """
        where = () if folder is None else (f"--git-dir={folder}",)
        fds = () if lock is None else (lock,)
        env = environment(self.home)
        return run(["git", *where, *argv], env=env, expect=expect, pass_fds=fds, input=input).output

    def transfer(self, *argv: str, folder: Path, lock: int, grown: Callable[[], int]) -> Result:
        """Run a git command that moves data, and return how it ended, whatever its status.

        ``grown`` tells how many bytes have come so far. Raises TransientError where nothing moved for
        ``silence`` seconds, and CancelledError where `stop` was set.
        """
        with scratch(self.root / "scratch", "git") as temporary:
            pid, said = temporary / "pid", temporary / "said"
            # $$ is git itself after exec, and its process group, as `run` starts a session for it.
            script = 'echo $$ > "$1"; out=$2; shift 2; exec "$@" > "$out" 2>&1'
            command = ["git", f"--git-dir={folder}", *argv]
            argv_sh = ["/bin/sh", "-c", script, "sh", os.fspath(pid), os.fspath(said), *command]
            worker = _Worker(argv_sh, environment(self.home), (lock,))
            worker.start()
            last, since = -1, time.monotonic()
            while worker.is_alive():
                worker.join(_POLL)
                moved = grown() + (said.stat().st_size if said.exists() else 0)
                if moved != last:
                    last, since = moved, time.monotonic()
                silent = time.monotonic() - since > self.silence
                if silent or self.stop.is_set():
                    while worker.is_alive():  # again and again: it may not have said its id yet
                        _kill(pid)
                        worker.join(_POLL)
                    if self.stop.is_set():
                        raise CancelledError("The downloads were stopped.")
                    raise TransientError(f"silent for {self.silence:g} s", unreachable=True)
            status = worker.status()
            return Result(status, said.read_text(errors="replace") if said.exists() else "")


class _Worker(threading.Thread):
    """Waits for one program, so that its starter can watch it."""

    def __init__(self, argv: Sequence[str], env: dict[str, str], fds: tuple[int, ...]) -> None:
        super().__init__(daemon=True)
        self._argv = argv
        self._env = env
        self._fds = fds
        self._status = 0
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._status = run(self._argv, env=self._env, pass_fds=self._fds, expect=None).status
        except BaseException as e:  # raised again by status()
            self._error = e

    def status(self) -> int:
        """Return the exit status, or raise what kept it from running."""
        if self._error is not None:
            raise self._error
        return self._status


def _kill(pid: Path) -> None:
    with contextlib.suppress(OSError, ValueError):
        os.killpg(int(pid.read_text()), signal.SIGKILL)


def reason(output: str) -> str:
    """Pick the line out of what git said that tells why it failed."""
    lines = [line.strip() for line in output.replace("\r", "\n").splitlines()]
    lines = [line for line in lines if line and not line.startswith(_SAYS_NOTHING)]
    for start in ("fatal: remote error:", "ERROR:", "fatal:", "error:"):
        for line in lines:
            if line.startswith(start):
                line = line.removeprefix("fatal: ").removeprefix("error: ").rstrip(".")
                return re.sub(r"^unable to access '[^']*': ", "", line)  # the URL stands before it
    return lines[-1].rstrip(".") if lines else "git failed without a word"


def unreadable(error: CommandError) -> str:
    """Say why a command on a mirror failed."""
    return reason((error.hint or "").partition("\n")[2])
