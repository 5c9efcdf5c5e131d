"""Another machine, as ssh reaches it: with the user's own configuration, agent and known hosts.

What a machine answers is bounded and parsed strictly: it may be broken or hostile.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import HostError, TimeLimitError, UsageError
from pipeline.run import Result, describe_status, run, running

SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15")
"""Nobody can answer a prompt of one host among several; a dead one is noticed within a minute."""

_HOST = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.@-]*@)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_][A-Za-z0-9_.-]*)")
_SSH_FAILED = 255
_IDLE = 60
"""Seconds without a byte after which a machine gives up the hash of a file that it waits for."""
_STALLED = 300
"""Seconds without a byte after which a connection counts as broken, though its keep-alives are answered."""
_BEAT = 0.2
"""Seconds between two looks at how far a file has come."""
_LOOKS = 20
"""How often a second the machine looks whether a file that it hashes has grown."""

_PROBE = r"""
set -u
folder=$HOME/$1; shift
if [ -d "$folder" ]; then echo 'finished yes'; fi
echo "machine $(uname -m)"
echo "uid $(id -u)"
for tool in pacman sha256sum dd; do command -v $tool > /dev/null && echo "tool $tool"; done
for disk in "$folder.part" "${folder%/*}" "$HOME"; do [ ! -d "$disk" ] || break; done
df -Pk "$disk" | { read -r _; read -r _ _ _ free _; echo "free $free"; }
for name; do
  size=0
  if [ -f "$folder.part/$name" ]; then size=$(wc -c < "$folder.part/$name"); fi
  echo "size $name" $size
done
"""
_MAKE = 'export LC_ALL=C; umask 022; mkdir -p -- "$HOME/$1.part"'
# dd writes at a place of its own: what was left of a connection that broke may still be writing, and then
# writes the same bytes to the same places.
_WRITE = (
    f'{_MAKE} && exec dd of="$HOME/$1.part/$2" oflag=seek_bytes seek="$3" conv=notrunc bs=128k status=none'
)
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
    # The last bytes come with the next look, it seems: nobody should wait for the whole of a pause then.
    pause={1 / _LOOKS}; [ $((size - there)) -ge $((there - before)) ] || pause={0.2 / _LOOKS}
    if [ "$there" -gt "$before" ]; then idle=0; fi
    before=$there idle=$((idle + 1)); [ $idle -lt {_IDLE * _LOOKS} ] || exit 1
    sleep $pause
  done < "$name" | sha256)
  # Given up, it is the hash of a part.
  [ "$(wc -c < "$name")" -ge "$size" ] || exit 1
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

    def write(self, path: Path, offset: int, on_bytes: Callable[[int], object]) -> None:
        """Send a file's bytes from an offset on; raises BrokenError and HostError.

        ``on_bytes`` hears now and then how many of them are on their way.
        """
        output = self.control.with_suffix(".said")
        output.unlink(missing_ok=True)
        command = self._command(_WRITE, self.folder, path.name, str(offset))
        with path.open("rb") as file:
            os.lseek(file.fileno(), offset, os.SEEK_SET)
            with running(command, env=_environment(), output=output, stdin=file) as process:
                for place in self._places(process, file):
                    on_bytes(place - offset)
            self._ended(process.returncode, output)

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

    def _places(self, process: subprocess.Popen[bytes], file: BinaryIO) -> Iterator[int]:
        """Give now and then the place that a program has come to in its input, until it ends."""
        ended = os.pidfd_open(process.pid)
        try:
            last, moved = -1, time.monotonic()
            # Popen.wait with a limit looks every 50 ms only.
            while not select.select([ended], [], [], _BEAT)[0]:
                # The program reads by the same open file.
                place = os.lseek(file.fileno(), 0, os.SEEK_CUR)
                if place != last:
                    last, moved = place, time.monotonic()
                elif time.monotonic() - moved > _STALLED:
                    raise BrokenError(f"{self.host} has taken nothing for {_STALLED} s.")
                yield place
        finally:
            os.close(ended)
        process.wait()

    def _ended(self, status: int, output: Path) -> None:
        said = " ".join(output.read_text(errors="replace").split())[-500:]
        if status == _SSH_FAILED or status < 0:
            raise BrokenError(f"{self.host}: ssh failed: {said or describe_status(status)}")
        if "No space left on device" in said or "quota exceeded" in said:
            raise HostError(f"{self.host} has no space left on its disk.")
        if status != 0:
            raise HostError(f"{self.host} refused: {said or describe_status(status)}")


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
