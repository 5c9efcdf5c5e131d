"""A run as one HTML page that needs nothing else: verdicts, timeline, consoles, screenshots.

All text in it comes from a machine under test: bounded, and escaped.
"""

from __future__ import annotations

import base64
import shlex
from dataclasses import dataclass
from pathlib import Path

from pipeline.files import write_text
from pipeline.report import html
from pipeline.smoke.results import DOM0_LOG, SERIAL, CaseResult, SmokeResult, Verdict
from pipeline.smoke.serial import Line
from pipeline.smoke.timeline import Phase, phases, read_log

PAGE = "results.html"
"""The page's name, in a run's output folder."""
MAX_LOG = 128 << 10
"""Bytes of a log that are shown; the whole of it lies beside the page."""
MAX_IMAGE = 2 << 20
MAX_SHOWN = 16 << 20
"""Bytes of logs in a page."""
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Log:
    """A log as it is shown; ``cut`` says that its beginning is left out."""

    name: str
    text: str
    cut: bool


@dataclass(frozen=True)
class Shown:
    """A case with what belongs to it: its consoles, pictures by name, the command that makes it alone."""

    case: CaseResult
    logs: tuple[Log, ...]
    pictures: tuple[tuple[str, str], ...]
    again: str


@dataclass(frozen=True)
class Bar:
    """A bar of the plot, in percent of its width."""

    label: str
    seconds: float
    left: float
    width: float
    kind: str


class _Shelf:
    """Reads logs of a run; all together, they are bounded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._room = MAX_SHOWN

    def data(self, name: str, most: int) -> tuple[bytes, bool]:
        """Return the end of a file of the run, and whether that is not all of it."""
        path = (self._folder / name).resolve()
        if not path.is_relative_to(self._folder.resolve()) or not path.is_file():
            return b"", False
        size = path.stat().st_size
        take = min(size, most, self._room)
        with path.open("rb") as file:
            file.seek(size - take)
            data = file.read(take)
        self._room -= len(data)
        return data, take < size

    def log(self, name: str) -> Log:
        """Return a log as it can be shown."""
        data, cut = self.data(name, MAX_LOG)
        return Log(name, plain(data.decode(errors="replace")), cut)

    def picture(self, name: str) -> str | None:
        """Return an image as the URL of its own data, or None for what is none."""
        data, cut = self.data(name, MAX_IMAGE)
        if cut or not data.startswith(_PNG):
            return None
        return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def plain(text: str) -> str:
    """Return a console's text without what steers a terminal, or turns the direction of writing."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in text)


def write(result: SmokeResult, folder: Path) -> Path:
    """Write a run's page beside its other files, and return its path."""
    path = folder / PAGE
    write_text(path, render(result, folder))
    return path


def render(result: SmokeResult, folder: Path) -> str:
    """Return a run's page; ``folder`` has the logs and screenshots that the result names."""
    shelf = _Shelf(folder)
    serial = shelf.data(SERIAL, MAX_SHOWN)[0].decode(errors="replace")
    lines = list(read_log(plain(serial)))
    shown = [_show(case, shelf, lines) for case in result.cases]
    environment = html.environment(Path(__file__).parent / "templates")
    environment.filters["plain"] = plain
    return environment.get_template("page.html").render(
        result=result,
        Verdict=Verdict,
        counts={v: sum(c.verdict is v for c in result.cases) for v in Verdict},
        failed=[s for s in shown if s.case in result.failures],
        shown=shown,
        bars=bars(phases(lines), result.cases),
        command=shlex.join(result.qemu_command),
        whole=[log for name in (SERIAL, DOM0_LOG) if (log := shelf.log(name)).text],
    )


def _show(case: CaseResult, shelf: _Shelf, serial: list[Line]) -> Shown:
    logs = [shelf.log(n) for n in case.logs if not n.endswith(".png") and n != SERIAL]
    if SERIAL in case.logs and case.seconds:
        logs.insert(0, _excerpt(case, serial))
    pictures = [(n, url) for n in case.logs if n.endswith(".png") and (url := shelf.picture(n))]
    again = shlex.join((*case.rerun, "--attach")) if case.rerun else ""
    return Shown(case, tuple(log for log in logs if log.text), tuple(pictures), again)


def _excerpt(case: CaseResult, serial: list[Line]) -> Log:
    """What came over the serial line while a case was made, which shares the log with others."""
    end = case.begin + case.seconds
    inside = [line for line in serial if case.begin <= line.seconds <= end]
    text = "\n".join(f"[{line.seconds:10.3f}] {line.text}" for line in inside)
    return Log(f"{SERIAL}, from {case.begin:.1f} s to {end:.1f} s", text[-MAX_LOG:], len(text) > MAX_LOG)


def bars(boot: tuple[Phase, ...], cases: tuple[CaseResult, ...]) -> list[Bar]:
    """Lay a boot's phases out below each other, and the cases that were made on that machine."""
    rows = [(p.stage.title, p.begin, p.end, "phase") for p in boot]
    # Those that came to be made on the machine of the log; others have another clock.
    on_it = [c for c in cases if SERIAL in c.logs and c.seconds]
    rows += [(c.name, c.begin, c.begin + c.seconds, kind(c)) for c in on_it]
    total = max((end for _, _, end, _ in rows), default=0.0)
    if not total:
        return []
    return [
        Bar(label, end - begin, 100 * begin / total, max(100 * (end - begin) / total, 0.4), kind)
        for label, begin, end, kind in rows
    ]


def kind(case: CaseResult) -> str:
    """Return the class in the style sheet of a case's verdict."""
    return case.verdict.name.lower()
