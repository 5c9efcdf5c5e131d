"""Trends as SVG that stands in the page itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from pipeline import log
from pipeline.nightly.night import Figures, Night

WIDTH, HEIGHT = 320, 120
_LEFT, _RIGHT, _TOP, _BOTTOM = 8, 8, 12, 10
"""The margins inside the drawing, in its own units."""


@dataclass(frozen=True)
class Trend:
    """A figure that is followed from night to night; ``show`` says a value for people."""

    title: str
    value: Callable[[Figures], float | None]
    show: Callable[[float], str]


TRENDS = (
    Trend("Build time", lambda f: f.build_seconds, log.duration),
    Trend("Boot until xl list", lambda f: f.boot_seconds, log.duration),
    Trend("Size of the packages", lambda f: f.package_bytes, lambda value: log.size(round(value))),
    Trend("Warnings of the compilers", lambda f: f.warnings, lambda value: f"{value:.0f}"),
    Trend(
        "Reproducible",
        lambda f: None if f.reproducible is None else float(f.reproducible),
        lambda value: "yes" if value else "no",
    ),
    Trend("Compiled files from ccache", lambda f: f.ccache, lambda value: f"{value:.0%}"),
    Trend("Flakes", lambda f: f.flakes, lambda value: f"{value:.0f}"),
)


@dataclass(frozen=True)
class Plot:
    """A trend drawn: ``last``, ``least`` and ``most`` are texts, empty where no night has the figure."""

    title: str
    svg: Markup
    last: str = ""
    least: str = ""
    most: str = ""


def plot(trend: Trend, nights: Sequence[Night]) -> Plot:
    """Draw a trend over nights, the oldest first. A night without the figure leaves a gap."""
    values = [trend.value(night.figures) for night in nights]
    known = [value for value in values if value is not None]
    if not known:
        return Plot(trend.title, Markup(""))
    least, most = min(known), max(known)
    points = [
        (night, value, _x(index, len(nights)), _y(value, least, most))
        for index, (night, value) in enumerate(zip(nights, values, strict=True))
        if value is not None
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for _, _, x, y in points)
    dots = Markup("").join(
        Markup('<a href="nights/{}.html"><circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3">').format(
            night.number, night.outcome.name.lower(), x, y
        )
        + Markup("<title>{}: {}</title></circle></a>").format(_name(night), trend.show(value))
        for night, value, x, y in points
    )
    label = f"{trend.title}: {trend.show(known[-1])} last, from {trend.show(least)} to {trend.show(most)}"
    svg = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, label)
    svg += Markup('<polyline points="{}"/>').format(line) + dots + Markup("</svg>")
    return Plot(trend.title, svg, trend.show(known[-1]), trend.show(least), trend.show(most))


def _x(index: int, count: int) -> float:
    return _LEFT + (WIDTH - _LEFT - _RIGHT) * (index / (count - 1) if count > 1 else 0.5)


def _y(value: float, least: float, most: float) -> float:
    """Zero is not on it where all values are far from it: what matters is that something moved."""
    share = (value - least) / (most - least) if most > least else 0.5
    return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * share


def _name(night: Night) -> Markup:
    return escape(f"Night {night.number}, {night.started:%Y-%m-%d}")
