"""Sends packages to several machines at once; one that fails does not stop the others."""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TypeAlias

from tqdm import tqdm

from pipeline import build as builds
from pipeline import files, log
from pipeline.errors import FailureError, HostError, IntegrityError, PipelineError, UsageError
from pipeline.transfer.remote import BrokenError, Probe, Remote

ATTEMPTS = 5
"""How often in a row a connection may break without having brought a byte."""

Bar: TypeAlias = "tqdm[NoReturn]"
_PAUSE = 2.0
_PACKAGE = re.compile(
    r"(?P<name>[A-Za-z0-9@_+][A-Za-z0-9@._+-]*)-[^-\s/]+-[^-\s/]+-(?P<arch>[a-z0-9_]+)\.pkg\.tar(\.[a-z0-9]+)?"
)
_SPARE = 16 << 20
"""Bytes that stay free on a target's disk."""

_INSTALL = r"""
cd -- "$HOME/$1" || exit 1; shift
if [ "$(id -u)" = 0 ]; then sudo=; else sudo='sudo -n'; fi
exec $sudo pacman -U --noconfirm -- "$@"
"""
_SMOKE = r"""
status=0
for name; do pacman -Qkk "$name" || status=1; done
if grep -q control_d /proc/xen/capabilities 2> /dev/null; then
  xl info || status=1
else
  echo 'Xen does not run there yet: boot into it, then send --smoke asks xl.'
fi
exit $status
"""


class SendError(HostError):
    """At least one of the machines did not get, or not install, what was sent."""


@dataclass(frozen=True)
class Cargo:
    """What is sent: files with their SHA-256, the packages' names, and the machine that they are for."""

    hashes: Mapping[Path, str]
    names: tuple[str, ...]
    architecture: str

    @property
    def files(self) -> dict[str, Path]:
        """The files by name."""
        return {path.name: path for path in self.hashes}

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(self.sizes.values())

    @property
    def sizes(self) -> dict[str, int]:
        """The files' names and bytes."""
        return {path.name: path.stat().st_size for path in sorted(self.hashes)}

    @property
    def sums(self) -> dict[str, str]:
        """The files' names and hashes."""
        return {path.name: sha256 for path, sha256 in self.hashes.items()}

    @property
    def folder(self) -> str:
        """The folder below a target's home: the same files always go to the same one."""
        text = "".join(f"{sha256} {name}\n" for name, sha256 in sorted(self.sums.items()))
        return f"xen-packages/{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@dataclass
class Delivery:
    """How it went with one machine."""

    host: str
    sent: int = 0
    seconds: float = 0
    done: list[str] = field(default_factory=list)
    error: str = ""

    def __str__(self) -> str:
        if self.error:
            return f"FAILED  {self.error}"
        rate = f"{log.size(round(self.sent / self.seconds))}/s" if self.sent and self.seconds else "-"
        return (
            f"ok      {', '.join(self.done)}; {log.size(self.sent)} in {log.duration(self.seconds)}, {rate}"
        )


def load(paths: Sequence[Path], folder: Path) -> Cargo:
    """Look at packages; those of a build, whose ``folder`` is given, were hashed when they were verified.

    Raises UsageError for files whose names are not those that makepkg gives.
    """
    known = builds.read(folder).hashes if (folder / "build.json").is_file() else {}
    hashes = {path: known.get(path.name) or files.sha256(path) for path in paths}
    matches = [_PACKAGE.fullmatch(path.name) for path in paths]
    if not all(matches) or not paths:
        raise UsageError("A package is called NAME-VERSION-RELEASE-ARCHITECTURE.pkg.tar and what packed it.")
    architectures = {match["arch"] for match in matches if match} - {"any"}
    if len(architectures) > 1:
        raise UsageError(f"The packages are for more than one machine: {', '.join(sorted(architectures))}.")
    names = tuple(match["name"] for match in matches if match)
    return Cargo(hashes, names, architectures.pop() if architectures else "any")


def send(cargo: Cargo, hosts: Sequence[str], *, install: bool = False, smoke: bool = False) -> str:
    """Send packages to machines, and install and look at them there if wanted; returns a table for people.

    Raises SendError with that table as its hint where something failed on a machine.
    """
    if not hosts:
        raise UsageError("No machine to send to is named.", hint="For example: ./inv send root@dom0.example")
    # Not below the store: a socket's address may have 107 bytes only, and ssh adds some of its own.
    with tempfile.TemporaryDirectory(prefix="ssh-") as sockets:
        names = list(dict.fromkeys(hosts))
        remotes = [Remote(host, cargo.folder, Path(sockets) / f"{n}") for n, host in enumerate(names)]
        deliveries = _deliver_all(cargo, remotes, install=install, smoke=smoke)
    width = max(len(delivery.host) for delivery in deliveries)
    table = "\n".join(f"  {d.host:<{width}}  {d}" for d in deliveries)
    if failed := [d.host for d in deliveries if d.error]:
        raise SendError(f"Sending failed for {', '.join(failed)}.", hint=f"\n{table}")
    return table


def _deliver_all(cargo: Cargo, remotes: Sequence[Remote], *, install: bool, smoke: bool) -> list[Delivery]:
    deliveries = [Delivery(remote.host) for remote in remotes]
    # Daemons: Ctrl-C ends this process at once, and with it what its threads have started.
    threads = [
        threading.Thread(target=_deliver, args=(cargo, remote, delivery, n, install, smoke), daemon=True)
        for n, (remote, delivery) in enumerate(zip(remotes, deliveries, strict=True))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return deliveries


def _deliver(cargo: Cargo, remote: Remote, delivery: Delivery, row: int, install: bool, smoke: bool) -> None:
    def say(line: str) -> None:
        log.info(f"{remote.host}: {line}")

    start = time.monotonic()
    try:
        _transfer(cargo, remote, delivery, row, say)
        delivery.seconds = time.monotonic() - start
        if install:
            _on_target(remote, _INSTALL, [remote.folder, *cargo.files], "pacman -U", say)
            delivery.done.append("installed")
        if smoke:
            _on_target(remote, _SMOKE, cargo.names, "the look at the installed packages", say)
            delivery.done.append("looked at")
    except PipelineError as e:
        delivery.error = " ".join(f"{e.message} {e.hint or ''}".split())[:600]
    except Exception as e:
        delivery.error = f"{type(e).__name__}: {e}"
    finally:
        with contextlib.suppress(PipelineError):
            remote.close()


def _on_target(
    remote: Remote, script: str, arguments: Sequence[str], what: str, say: Callable[[str], None]
) -> None:
    result = remote.run(script, *arguments, on_line=say)
    if result.status != 0:
        raise FailureError(f"{what} ended with exit status {result.status} there.")


def _transfer(cargo: Cargo, remote: Remote, delivery: Delivery, row: int, say: Callable[[str], None]) -> None:
    """Bring the files there, however often the connection breaks, until their hashes are right."""
    probe = remote.probe(tuple(cargo.files))
    _fits(cargo, probe)
    if probe.finished and remote.has(cargo.sums):
        delivery.done.append("there already")
        return
    bar = tqdm(
        desc=remote.host,
        total=cargo.size,
        position=row,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        disable=not log.is_terminal(),
    )
    with bar:
        for attempt in (1, 2):
            found = _bring(cargo, remote, probe, delivery, bar, say)
            wrong = [name for name, sha256 in cargo.sums.items() if found.get(name) != sha256]
            if not wrong:
                break
            remote.forget(wrong)
            _damaged_here(cargo, wrong)
            if attempt == 2:
                raise HostError(f"{', '.join(wrong)} arrived damaged twice.")
            say(f"{', '.join(wrong)}: not as it should be there, sent anew")
            probe = remote.probe(tuple(cargo.files))
    remote.finish()
    delivery.done.append("verified")


def _damaged_here(cargo: Cargo, names: Sequence[str]) -> None:
    """Raise IntegrityError for files that are not what they were; only doubt is worth reading them again."""
    for name in names:
        if files.sha256(cargo.files[name]) != cargo.sums[name]:
            raise IntegrityError(f"{cargo.files[name]} is damaged here: its SHA-256 is another.")


def _fits(cargo: Cargo, probe: Probe) -> None:
    if cargo.architecture not in ("any", probe.machine):
        raise HostError(
            f"Its architecture is {probe.machine}, and the packages are for {cargo.architecture}."
        )
    for tool in ("pacman", "sha256sum", "dd"):
        if tool not in probe.tools:
            raise HostError(f"It has no {tool}.")
    missing = 0 if probe.finished else cargo.size - probe.sent
    if missing + _SPARE > probe.free:
        raise HostError(f"It has {log.size(probe.free)} free, and {log.size(missing + _SPARE)} are needed.")


def _bring(
    cargo: Cargo, remote: Remote, probe: Probe, delivery: Delivery, bar: Bar, say: Callable[[str], None]
) -> dict[str, str]:
    """Send what is missing, on from where a broken connection stopped; return the hashes of what is there."""
    failures = 0
    if too_long := [n for n, path in cargo.files.items() if probe.sizes[n] > path.stat().st_size]:
        remote.forget(too_long)
        probe = remote.probe(tuple(cargo.files))
    first = probe
    if probe.sent:
        say(f"goes on after {log.size(probe.sent)}")
    while True:
        try:
            with remote.hashing(cargo.sizes) as hashes:
                _send_rest(cargo, remote, probe, bar)
                found = hashes()
            delivery.sent += cargo.size - first.sent
            return found
        except BrokenError as e:
            say(f"{e.message} Trying again.")
            time.sleep(_PAUSE)
            before = probe.sent
            try:
                probe = remote.probe(tuple(cargo.files))
            except BrokenError:
                failures += 1
                if failures >= ATTEMPTS:
                    raise
            else:
                failures = 0 if probe.sent > before else failures + 1
            if failures >= ATTEMPTS:
                raise


def _send_rest(cargo: Cargo, remote: Remote, probe: Probe, bar: Bar) -> None:
    def on_total(count: int) -> None:
        bar.n = min(count, cargo.size)
        bar.refresh()

    done = probe.sent
    # In the order in which they are hashed there.
    for name, size in cargo.sizes.items():
        offset, rest = probe.sizes[name], size - probe.sizes[name]
        if rest > 0:
            remote.write(cargo.files[name], offset, lambda count, before=done: on_total(before + count))  # type: ignore[misc]
            done += rest
