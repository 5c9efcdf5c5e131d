"""Nights by their days: a night that did not take place is a hole that can be seen."""

from __future__ import annotations

import calendar
import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.nightly.night import Night, Outcome


@dataclass(frozen=True)
class Day:
    """A day of a month, with the night that stands for it; ``missed`` says that there should be one."""

    date: datetime.date
    night: Night | None
    missed: bool


@dataclass(frozen=True)
class Month:
    """Weeks from Monday to Sunday; None is a day of the month before or after."""

    first: datetime.date
    weeks: tuple[tuple[Day | None, ...], ...]


def months(nights: Sequence[Night], today: datetime.date, most: int) -> list[Month]:
    """Lay nights out, the newest month first; months without any are left out, and old ones.

    Of several nights of a day, the last that found something stands for it. A clock that jumped does
    not make ten years of holes: only days between a month's own nights, or until today, count as missed.
    """
    by_day: dict[datetime.date, Night] = {}
    for night in sorted(nights, key=lambda night: night.number):
        day = night.started.date()
        if night.outcome is not Outcome.NOTHING or day not in by_day:
            by_day[day] = night
    firsts = sorted({day.replace(day=1) for day in by_day}, reverse=True)[:most]
    begin = min(by_day, default=today)
    return [_month(first, by_day, begin, today) for first in firsts]


def _month(
    first: datetime.date, by_day: dict[datetime.date, Night], begin: datetime.date, today: datetime.date
) -> Month:
    weeks = calendar.Calendar().monthdatescalendar(first.year, first.month)

    def day(date: datetime.date) -> Day | None:
        if date.month != first.month:
            return None
        night = by_day.get(date)
        return Day(date, night, missed=night is None and begin < date < today)

    return Month(first, tuple(tuple(day(date) for date in week) for week in weeks))
