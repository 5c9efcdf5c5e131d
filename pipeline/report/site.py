"""Writes the site: an index, and a page a night with its logs beside it."""

from __future__ import annotations

import contextlib
import datetime
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pipeline import evidence, files, log
from pipeline.errors import UsageError
from pipeline.nightly.book import FILE, Book
from pipeline.nightly.night import Night, Outcome
from pipeline.nightly.watch import DIFFERENCE, NIGHTS
from pipeline.report import html
from pipeline.report.calendar import months
from pipeline.report.plots import TRENDS, plot
from pipeline.scratch import scratch
from pipeline.smoke import page
from pipeline.smoke import results as smoke

FOLDER = "report"
INDEX = "index.html"
_MARK = ".report"
"""The file by which a report knows another one, which it may replace."""
_PLOTTED = 90
"""Nights in a plot: a season."""
_MONTHS = 12
_LISTED = 60
"""Nights, and commits, in a list."""
_AROUND = 6
"""Lines of a log before and after the first error."""
_LONGEST = 300
_STALE = datetime.timedelta(hours=36)
_PAGE = f"smoke/{page.PAGE}"
"""The page of a night's boots: written by this program, not by what it tested, and so shown as it is."""
_NOT_SHOWN = {"settings.json"}
"""Files of a night that are of no use to readers; settings may name hosts."""


@dataclass(frozen=True)
class Log:
    """A file of a night: what it was called, and where it is from the night's page."""

    name: str
    link: str
    size: str


@dataclass(frozen=True)
class Report:
    """Makes the site of a release. ``folder`` is where its builds, nights and history are."""

    folder: Path
    release: str
    now: datetime.datetime

    @classmethod
    def of(cls, artifacts: Path, release: str) -> Report:
        """The report of a release's nights, as of now."""
        return cls(artifacts / release, release, evidence.now())

    def write(self, output: Path | None = None) -> Path:
        """Write the site and return its first page; the one before it is replaced when this one is whole.

        Raises UsageError where something else than a report is in the way.
        """
        target = output or self.folder / FOLDER
        if target.exists() and not (target / _MARK).is_file():
            raise UsageError(
                f"{target} is there already, and no report.", hint="--output names a new folder."
            )
        nights = Book(self.folder / FILE, self.release).nights()
        with scratch(target.parent, f".{target.name}") as temporary:
            new = temporary / "new"
            (new / "nights").mkdir(parents=True)
            for night in nights:
                if night.outcome is not Outcome.NOTHING:
                    self._night(new, night)
            (new / _MARK).touch()
            self._write(new / INDEX, "index.html", top="", **self._overview(nights))
            files.sync_tree(new)
            if target.exists():
                target.rename(temporary / "old")
            new.rename(target)
        log.info(f"{len(nights)} nights")
        return target / INDEX

    def _overview(self, nights: Sequence[Night]) -> dict[str, object]:
        judged = [night for night in nights if night.outcome.judges][:_PLOTTED][::-1]
        newest = nights[0] if nights else None
        return {
            "nights": [night for night in nights if night.outcome is not Outcome.NOTHING][:_LISTED],
            "newest": newest,
            "stale": newest is not None and self.now - newest.started > _STALE,
            "good": next((night for night in nights if night.outcome is Outcome.GOOD), None),
            "counts": {o: sum(n.outcome is o for n in nights) for o in Outcome},
            "months": months(nights, self.now.date(), _MONTHS),
            "plots": [drawn for trend in TRENDS if (drawn := plot(trend, judged)).svg],
        }

    def _night(self, new: Path, night: Night) -> None:
        source = self.folder / NIGHTS / str(night.number)
        logs = self._copy(source, new / "nights", night)
        self._write(
            new / "nights" / f"{night.number}.html",
            "night.html",
            top="../",
            night=night,
            logs=logs,
            links={entry.name: entry.link for entry in logs},
            excerpt=_excerpt(source, night),
            smoke=_smoke(source),
            page=_PAGE,
            difference=_text(source / DIFFERENCE),
            listed=_LISTED,
        )

    def _copy(self, source: Path, target: Path, night: Night) -> list[Log]:
        """Bring a night's files into the site, as .txt: browsers show that, and run nothing in it."""
        found = []
        for path in sorted(source.rglob("*")):
            name = str(path.relative_to(source))
            if path.is_file() and not path.is_symlink() and name not in _NOT_SHOWN:
                link = f"{night.number}/{name}" + ("" if path.suffix == ".png" or name == _PAGE else ".txt")
                (target / link).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target / link)
                found.append(Log(name, link, log.size(path.stat().st_size)))
        return found

    def _write(self, path: Path, template: str, **values: object) -> None:
        made = html.environment().get_template(template)
        path.write_text(
            made.render(release=self.release, now=self.now, Outcome=Outcome, **values), encoding="utf-8"
        )


def _excerpt(folder: Path, night: Night) -> list[tuple[int, str]]:
    """The lines of the log around the first error, with their numbers."""
    trouble = night.trouble
    text = None if trouble is None or not trouble.line else _text(folder / trouble.log)
    if trouble is None or text is None:
        return []
    lines = text.splitlines()
    begin = max(0, trouble.line - 1 - _AROUND)
    shown = lines[begin : trouble.line + _AROUND]
    return [(number, line[:_LONGEST]) for number, line in enumerate(shown, start=begin + 1)]


def _smoke(folder: Path) -> smoke.SmokeResult | None:
    try:
        return smoke.read(folder / "smoke" / smoke.JSON)
    except (OSError, msgspec.DecodeError):
        return None


def _text(path: Path) -> str | None:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return None
