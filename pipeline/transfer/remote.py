"""Another machine, as ssh reaches it: with the user's own configuration, agent and known hosts.

What a machine answers is bounded and parsed strictly: it may be broken or hostile.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import CommandError, HostError, TimeLimitError, UsageError
from pipeline.run import Result, describe_status, run, running

SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15")
"""Nobody can answer a prompt of one host among several; a dead one is noticed within a minute."""

_HOST = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.@-]*@)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_][A-Za-z0-9_.-]*)")
_SSH_FAILED = 255
_IDLE = 60
"""Seconds without a byte after which a connection counts as broken."""
_LOOKS = 20
"""How often a second the machine looks whether a file that it hashes has grown."""

_PROBE = r"""
set -u
folder=$HOME/$1; shift
if [ -d "$folder" ]; then echo 'finished yes'; fi
echo "machine $(uname -m)"
echo "uid $(id -u)"
for tool in pacman rsync sha256sum; do command -v $tool > /dev/null && echo "tool $tool"; done
for disk in "$folder.part" "${folder%/*}" "$HOME"; do [ ! -d "$disk" ] || break; done
df -Pk "$disk" | { read -r _; read -r _ _ _ free _; echo "free $free"; }
for name; do
  size=0
  if [ -f "$folder.part/$name" ]; then size=$(wc -c < "$folder.part/$name"); fi
  echo "size $name" $size
done
"""
_MAKE = 'mkdir -p -- "$HOME/$1.part"'
_APPEND = f'{_MAKE} && cat >> "$HOME/$1.part/$2"'
# Hashes files while they grow, so that nothing is left to be read when the last byte has come. What was
# started for a connection that broke goes away by itself after a minute in which nothing has come. openssl
# uses the processor's own instructions, which not every sha256sum does.
_HASH = rf"""
{_MAKE} && cd -- "$HOME/$1.part" || exit 1
shift
sha256() {{ if command -v openssl > /dev/null; then openssl dgst -sha256 -r; else sha256sum; fi; }}
while [ $# -gt 0 ]; do
  name=$1 size=$2 before=0 idle=0; shift 2
  : >> "$name"
  sum=$(while there=$(wc -c < "$name"); cat; [ "$there" -lt "$size" ]; do
    if [ "$there" -gt "$before" ]; then before=$there idle=0; fi
    idle=$((idle + 1)); [ $idle -lt {_IDLE * _LOOKS} ] || exit 1
    sleep {1 / _LOOKS}
  done < "$name" | sha256)
  echo "sum $name ${{sum%% *}}"
done
"""
_FORGET = 'folder=$HOME/$1.part; shift; for name; do rm -f -- "$folder/$name"; done'
_VERIFY = 'cd -- "$HOME/$1" && sha256sum -c - 2> /dev/null'
_FINISH = 'cd -- "$HOME" && rm -rf -- "$1" && mv -- "$1.part" "$1"'


@dataclass(frozen=True)
class Probe:
    """What a machine says of itself: uname -m, user id, free bytes, tools, and the bytes of each file there.

    ``finished`` says that an earlier transfer of the same files came to its end.
    """

    machine: str
    uid: int
    free: int
    tools: frozenset[str]
    sizes: Mapping[str, int]
    finished: bool = False

    @property
    def sent(self) -> int:
        """The bytes that are there of what is not verified yet."""
        return sum(self.sizes.values())


class BrokenError(HostError):
    """The connection broke; what was sent is still there."""


@dataclass(frozen=True)
class Remote:
    """A machine and the folder below its user's home that packages go to (``FOLDER.part`` until verified).

    ``control`` is the path of a socket by which all that is done there shares one connection, until `close`.
    """

    host: str
    folder: str
    control: Path

    def __post_init__(self) -> None:
        if not _HOST.fullmatch(self.host):
            raise UsageError(f"{self.host!r} is not [USER@]HOST.")

    @property
    def _ssh(self) -> tuple[str, ...]:
        # ssh_config(5). The time is for a sender that was killed; it must not leave the connection for good.
        shared = ("ControlMaster=auto", f"ControlPath={self.control}", "ControlPersist=30")
        return (*SSH, *(word for option in shared for word in ("-o", option)))

    def close(self) -> None:
        """End the connection."""
        run([*self._ssh, "-O", "exit", self.host], env=_environment(), expect=None)

    def probe(self, names: Sequence[str]) -> Probe:
        """Ask the machine about itself; raises HostError."""
        return parse_probe(self.host, self._shell(_PROBE, self.folder, *names).output, names)

    def forget(self, names: Sequence[str]) -> None:
        """Remove what was sent of these files."""
        self._shell(_FORGET, self.folder, *names)

    def has(self, hashes: Mapping[str, str]) -> bool:
        """Let the machine hash what an earlier transfer has finished: whether all is as it should be."""
        listing = "".join(f"{sha256}  {name}\n" for name, sha256 in hashes.items())
        return self._shell(_VERIFY, self.folder, input=listing, expect=None).status == 0

    @contextlib.contextmanager
    def hashing(self, sizes: Mapping[str, int]) -> Iterator[Callable[[], dict[str, str]]]:
        """Let the machine hash files while they are sent, up to their sizes in bytes.

        Gives what waits for the hashes, by name, once all is sent; it raises BrokenError.
        """
        output = self.control.with_suffix(".sums")
        output.unlink(missing_ok=True)
        words = [word for name, size in sizes.items() for word in (name, str(size))]

        def wait() -> dict[str, str]:
            status = process.wait()
            said = output.read_text(errors="replace")[:100_000].splitlines()
            if status != 0:
                raise BrokenError(f"{self.host} did not hash what came: {' '.join(said)[-500:]}")
            found = [line.split(" ") for line in said]
            return {w[1]: w[2] for w in found if len(w) == 3 and w[0] == "sum"}

        with running(self._command(_HASH, self.folder, *words), env=_environment(), output=output) as process:
            yield wait

    def finish(self) -> None:
        """Give the verified files their place."""
        self._shell(_FINISH, self.folder)

    def run(self, script: str, *arguments: str, on_line: Callable[[str], None]) -> Result:
        """Run a shell script there, whatever its status; raises BrokenError."""
        return self._shell(script, *arguments, expect=None, on_line=on_line)

    def rsync(self, paths: Sequence[Path], on_bytes: Callable[[int], object]) -> None:
        """Send files by rsync, each on from the byte where it stopped; raises BrokenError and HostError.

        ``on_bytes`` hears how many bytes are through by now.
        """

        def on_line(line: str) -> None:
            # "  1,234,567  45%  1.20MB/s  0:00:10": rsync(1), --info=progress2
            if match := re.match(r"\s*([\d,]+)\s+\d+%", line):
                on_bytes(int(match[1].replace(",", "")))

        # --append does not read again what is there already, on either side: sha256sum does so at the end.
        options = ("--append", "--times", "--chmod=F644", f"--timeout={_IDLE}", "--info=progress2")
        target = f"{self.host}:{self.folder}.part/"
        command = ["rsync", *options, "--no-inc-recursive", "--outbuf=N", "--rsh", shlex.join(self._ssh)]
        command += ["--rsync-path", f"mkdir -p {self.folder}.part && rsync", "--"]
        try:
            run([*command, *paths, target], env=_environment(), on_line=on_line, carriage_returns=True)
        except CommandError as e:
            raise self._explained("rsync", e) from e

    def append(self, path: Path, offset: int, on_bytes: Callable[[int], object]) -> None:
        """Send a file's bytes from an offset on through ssh alone; raises BrokenError and HostError."""
        with path.open("rb") as file:
            os.lseek(file.fileno(), offset, os.SEEK_SET)
            ended = threading.Event()

            def watch() -> None:
                while not ended.wait(0.2):
                    # ssh reads by the same open file, so its place in it is how far it has come.
                    on_bytes(os.lseek(file.fileno(), 0, os.SEEK_CUR) - offset)

            watcher = threading.Thread(target=watch, daemon=True)
            watcher.start()
            try:
                run(self._command(_APPEND, self.folder, path.name), env=_environment(), stdin=file)
            except CommandError as e:
                raise self._explained("ssh", e) from e
            finally:
                ended.set()
                watcher.join()

    def _command(self, script: str, *arguments: str) -> list[str]:
        # The user's shell there may be any: it only has to start sh.
        return [*self._ssh, self.host, shlex.join(["sh", "-c", script, "sh", *arguments])]

    def _shell(
        self,
        script: str,
        *arguments: str,
        input: str = "",
        expect: Sequence[int] | None = (0,),
        on_line: Callable[[str], None] | None = None,
    ) -> Result:
        try:
            result = run(
                self._command(script, *arguments),
                env=_environment(),
                input=None if on_line else input.encode(),
                expect=None,
                on_line=on_line,
                merge_stderr=on_line is not None,
                timeout=3600,
            )
        except TimeLimitError as e:
            raise BrokenError(f"{self.host} did not answer within an hour.") from e
        said = " ".join(result.output.split())[-500:]
        if result.status == _SSH_FAILED:
            raise BrokenError(f"{self.host} cannot be reached: {said}")
        if expect is not None and result.status not in expect:
            raise HostError(f"{self.host} refused: {said or describe_status(result.status)}")
        return result

    def _explained(self, program: str, error: CommandError) -> HostError:
        said = " ".join((error.hint or "").partition("\n")[2].split())[-500:]
        if "No space left on device" in said:
            return HostError(f"{self.host} has no space left on its disk.")
        return BrokenError(f"{self.host}: {program} failed: {said or error.message}")


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}


def parse_probe(host: str, text: str, names: Sequence[str]) -> Probe:
    """Read what the probe's script printed; raises HostError for anything else.

    Lines of other kinds are let pass: a shell's start-up files may greet.
    """
    words = [line.split(" ") for line in text[:100_000].splitlines()]
    values = {w[0]: w[1] for w in words if len(w) == 2 and w[0] in ("machine", "uid", "free")}
    sizes = {w[1]: w[2].strip() for w in words if len(w) == 3 and w[0] == "size" and w[1] in names}
    numbers = [values.get("uid", ""), values.get("free", ""), *sizes.values()]
    if not all(re.fullmatch("[0-9]{1,18}", n) for n in numbers) or len(sizes) != len(names):
        raise HostError(f"{host} did not say what it is asked.", hint=text.strip()[-500:])
    return Probe(
        machine=values.get("machine", ""),
        uid=int(values["uid"]),
        free=int(values["free"]) << 10,
        finished=["finished", "yes"] in words,
        tools=frozenset(w[1] for w in words if len(w) == 2 and w[0] == "tool"),
        sizes={name: int(size) for name, size in sizes.items()},
    )
