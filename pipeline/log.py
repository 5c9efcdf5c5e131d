"""What the user sees: nested steps with their durations, warnings, and lines below a progress bar.

Everything goes to standard error, so that standard output holds results only.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

from pipeline import pace

# tqdm's own is made when it is first wanted; Ctrl-C in the middle of that leaves it without any.
tqdm.set_lock(threading.RLock())
_indent = threading.local()
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters but for tab and line feed, and what no encoding has."""


def is_terminal() -> bool:
    """Whether a person watches: progress bars and colours only then."""
    return sys.stderr.isatty()


def paint(text: str, code: str, *, output: bool = False) -> str:
    """Colour a text, by the numbers of an ANSI sequence, where a person reads it in a terminal that can.

    ``output`` says that it goes to standard output.
    """
    # https://no-color.org: any non-empty NO_COLOR switches colours off.
    watched = (sys.stdout if output else sys.stderr).isatty()
    if not watched or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\033[{code}m{text}\033[0m"


def plain(text: str) -> str:
    """A text without what a terminal would obey: it may come from a mirror or a package."""
    return _OBEYED.sub(lambda match: ascii(match[0])[1:-1], text)


def _write(text: str, mark: str = "") -> None:
    prefix = "  " * getattr(_indent, "depth", 0) + mark
    # Where nobody reads it, as with a pager that was left, the work goes on all the same.
    with contextlib.suppress(OSError):
        # tqdm.write keeps live progress bars intact.
        tqdm.write(prefix + plain(text), file=sys.stderr)


def info(text: str) -> None:
    """Print one line of progress."""
    _write(text)


def warn(text: str) -> None:
    """Print one line about something that is not an error, but not expected either."""
    _write(text, paint("warning: ", "33"))


def error(message: str, hint: str | None = None) -> None:
    """Print a failure: one sentence, and what to do about it."""
    _write(message, paint("error: ", "31;1"))
    if hint:
        _write(hint, paint("hint: ", "36"))


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step with how long it took last time, indent what it prints, and say how long it took."""
    before = pace.last(title)
    _write(title + (f" (last time: {duration(before)})" if before else ""), paint("==> ", "32"))
    depth = getattr(_indent, "depth", 0)
    _indent.depth = depth + 1
    start = time.monotonic()
    try:
        yield
    except BaseException:
        _indent.depth = depth
        _write(f"{title}: stopped after {duration(time.monotonic() - start)}", paint("==> ", "31"))
        raise
    _indent.depth = depth
    pace.note(title, time.monotonic() - start)
    _write(f"{title}: done in {duration(time.monotonic() - start)}", paint("==> ", "32"))


@contextlib.contextmanager
def bytes_bar(title: str, total: int | None = None) -> Iterator[Callable[[int], object]]:
    """Show a bar of bytes on a terminal, and give the function that moves it on."""
    bar = tqdm(
        desc=title,
        total=total,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        leave=False,
        disable=not is_terminal(),
    )
    with bar:
        yield bar.update


def duration(seconds: float) -> str:
    """Render a number of seconds for people: ``0.4 s``, ``12.3 s``, ``6 min 40 s``, ``1 h 02 min``."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def size(count: int) -> str:
    """Render a number of bytes for people, in binary units."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if round(value, 1) < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")
