"""Brings a channel's repository to another host by rsync, in an order that clients there can live with."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipeline import log
from pipeline.errors import CommandError, FailureError, HostError, UsageError
from pipeline.repository.channel import ARCHITECTURE, INDEX, Index, Place, read_index
from pipeline.run import run

_TARGET = re.compile(r"([A-Za-z0-9_][^\s:]*:)?[^\s:-][^\s:]*")


def sync(place: Place, target: str) -> None:
    """Bring a channel to ``[USER@]HOST:FOLDER``, below which it gets the folders CHANNEL/x86_64.

    Packages go first, then databases, then the link that makes them current, and deletions come last.
    What clients of the target may be fetching from stays until the next time. Raises UsageError, HostError,
    and FailureError where the target was published to from elsewhere.
    """
    if not _TARGET.fullmatch(target):
        raise UsageError(f"{target!r} is not a place to publish to.", hint="For example user@host:/srv/repo.")
    index = place.read()
    if index is None:
        raise UsageError(f"Nothing has been published to {place.channel}.")
    # The lock keeps a publisher of this host from changing anything on the way.
    with place.locked(), log.step(f"Bringing {place.channel.repository} to {target}"):
        there = _there(place, target)
        if there is not None and (there.generation, there.published) > (index.generation, index.published):
            raise FailureError(
                f"{target} has a newer generation of {place.channel.repository} than this host.",
                hint="Somebody else publishes there; fetch their repository first.",
            )
        _rsync(place, target, "--exclude=/generations", "--exclude=/current", *_links(place))
        _rsync(place, target, "--exclude=/current", *_links(place))
        _rsync(place, target)
        _rsync(place, target, "--delete-after", *_protected(there))


def _links(place: Place) -> list[str]:
    return [f"--exclude=/{name}" for name in place.database_files]


def _protected(there: Index | None) -> list[str]:
    """Filters (rsync(1), "P") that keep what clients of the target's old database may be fetching."""
    if there is None:
        return []
    names = [f"generations/{there.generation}"]
    names += [name for p in there.offered.values() for name in (p.file, f"{p.file}.sig")]
    return [f"--filter=protect /{name}" for name in names]


def _there(place: Place, target: str) -> Index | None:
    with tempfile.TemporaryDirectory(prefix="sync-") as name:
        source = f"{target}/{place.channel}/{ARCHITECTURE}/current/{INDEX}"
        # 23: there is no such file, which the first time is as it should be.
        result = run(["rsync", "--protect-args", source, name], expect=None)
        if result.status not in (0, 23):
            raise HostError(f"{target} cannot be reached by rsync.", hint=result.output.strip())
        return read_index(Path(name) / INDEX)


def _rsync(place: Place, target: str, *options: str) -> None:
    # A new file is written beside the old one and renamed, so a client never gets half of one.
    _call(
        ["--archive", "--no-owner", "--no-group", *options, "--", f"{place.folder}/", _folder(place, target)]
    )


def _folder(place: Place, target: str) -> str:
    return f"{target.rstrip('/')}/{place.channel}/{ARCHITECTURE}/"


def _call(arguments: Sequence[str]) -> None:
    try:
        # --mkpath is rsync 3.2.3's, of 2020, and only the sender need know it.
        run(["rsync", "--protect-args", "--mkpath", *arguments])
    except CommandError as e:
        raise HostError("rsync could not bring the repository over.", hint=e.hint) from e
