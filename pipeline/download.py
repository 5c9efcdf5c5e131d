"""Files of unknown size and content from a URL, to be judged by what is in them (pipeline.fetch: by hash)."""

from __future__ import annotations

import time
from collections.abc import Callable
from io import BufferedWriter
from pathlib import Path

from pipeline import log
from pipeline.errors import HostError
from pipeline.transport import Limits, RangeError, RefusedError, TransientError, Transport, shown

_BLOCK = 1 << 20


class AbsentError(HostError):
    """A URL does not give the file."""


def is_url(word: str) -> bool:
    """Whether a word on the command line is a URL rather than a path."""
    return word.startswith(("https://", "http://", "file:///"))


def download(url: str, target: Path, limit: int, limits: Limits | None = None) -> Path:
    """Write what a URL gives to ``target``, going on where the connection broke; returns ``target``.

    ``limit`` is in bytes. Raises AbsentError saying what the server answered.
    """
    limits = limits or Limits()
    try:
        with target.open("wb") as file, log.bytes_bar(target.name) as on_bytes:
            _fill(url, file, limit, limits, on_bytes)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return target


def _fill(
    url: str, file: BufferedWriter, limit: int, limits: Limits, on_bytes: Callable[[int], object]
) -> None:
    transport = Transport(limits, 1)
    fruitless = 0
    while True:
        before = file.tell()
        try:
            with transport.open(url, before, None) as body:
                if body.offset != before:
                    _empty(file)
                while block := body.read(_BLOCK):
                    if file.tell() + len(block) > limit:
                        raise RefusedError(f"sends more than {log.size(limit)}")
                    file.write(block)
                    on_bytes(len(block))
            return
        except RangeError:
            _empty(file)
            fruitless += 1
            reason = "does not go on where it stopped"
        except RefusedError as e:
            raise AbsentError(f"{shown(url)}: {shown(e.message)}.") from e
        except TransientError as e:
            fruitless = fruitless + 1 if file.tell() == before else 0
            reason = shown(e.message)
        if fruitless >= limits.rounds:
            raise AbsentError(f"{shown(url)}: {reason}.")
        time.sleep(limits.backoff * 2**fruitless)


def _empty(file: BufferedWriter) -> None:
    file.seek(0)
    file.truncate()
