"""The report, as browsers see it."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.nightly.night import Figures, Night, Outcome
from pipeline.nightly.watch import NIGHTS
from pipeline.report.calendar import months
from pipeline.report.plots import TRENDS, plot
from pipeline.report.site import Report
from tests.nightly.machine import Site
from tests.repositories import Repository

START = datetime.datetime(2030, 1, 1, 3, tzinfo=datetime.UTC)
HOSTILE = "<script>alert(1)</script><img src=https://evil.example/x>"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Two weeks of nights in which everything happens, with commits by somebody hostile."""
    folder = tmp_path_factory.mktemp("nights")
    site = Site(folder, Repository.make(folder / "upstream"))
    site.commit("first")
    site.night()
    site.night()
    site.commit(f"second {HOSTILE}")
    site.night("build red")
    site.commit("third")
    site.night("smoke host")
    site.commit("fourth")
    site.night("smoke red")
    site.now += datetime.timedelta(days=3)
    site.commit("fifth")
    site.night("check red 1")
    return site


@pytest.fixture(scope="module")
def index(site: Site) -> Path:
    return Report(site.nightly.folder, "small", site.now).write()


class Page(HTMLParser):
    """What a page refers to, its text, and whether every element is closed."""

    VOID = ("meta", "br", "img", "circle")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(path.read_text())
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [
            value or "" for name, value in attrs if name in ("href", "src", "xlink:href", "srcset")
        ]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in ("meta",):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_page_is_whole_and_refers_to_nothing_outside(index: Path) -> None:
    """It is opened from a disk, by mail, or behind a firewall."""
    pages = sorted(index.parent.rglob("*.html"))
    assert [page.name for page in pages] == ["index.html", "1.html", "3.html", "4.html", "5.html", "6.html"]
    for path in pages:
        page = Page(path)
        assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
        for link in page.links:
            assert (path.parent / unquote(link)).resolve().is_file(), (path, link)
        style = path.read_text().partition("<style>")[2].partition("</style>")[0]
        assert not re.search(r"url\(|@import|//", style)


def test_the_index_says_how_things_stand(index: Path) -> None:
    """The last night, the last good one, and each outcome counted."""
    text = " ".join(Page(index).text.split())
    assert "The last one, number 6 of 2030-01-10 00:00 UTC: good." in text
    assert "Last good: 1.0.r5.g" in text
    assert "2 good, 2 red, 1 nothing new, 1 infrastructure" in text
    assert index.read_text().count('class="missed"') == 3
    assert "No night has begun since" not in text


def test_nights_that_stopped_are_said_to_have(site: Site, tmp_path: Path) -> None:
    """A timer that somebody disabled would look like weeks in which all was well."""
    later = Report(site.nightly.folder, "small", site.now + datetime.timedelta(days=4))
    assert "No night has begun since 2030-01-10" in Page(later.write(tmp_path / "site")).text


def test_a_red_night_shows_the_error_in_its_log(index: Path) -> None:
    """And whose commits may be the cause, and what the test bed saw."""
    path = index.parent / "nights" / "3.html"
    text = " ".join(Page(path).text.split())
    assert "'page' undeclared (first use in this function)" in text
    assert "File: xen/arch/x86/mm.c" in text
    assert f"second {HOSTILE}" in text
    assert re.search(r"<mark>\d+  arch/x86/mm.c:12:5: error", path.read_text())
    assert "xl answers" in Page(index.parent / "nights" / "5.html").text


def test_a_flake_is_shown_as_one(index: Path) -> None:
    """It passed, and yet somebody must look at it."""
    assert "passed the second time" in Page(index.parent / "nights" / "6.html").text


def test_a_report_replaces_nothing_but_a_report(index: Path, site: Site, tmp_path: Path) -> None:
    """--output ~ must not cost anybody their files."""
    (tmp_path / "file").write_text("mine")
    report = Report(site.nightly.folder, "small", site.now)
    with pytest.raises(UsageError, match="is there already"):
        report.write(tmp_path)
    assert (tmp_path / "file").read_text() == "mine"
    first = report.write(tmp_path / "site")
    (first.parent / "old").touch()
    assert report.write(tmp_path / "site") == first
    assert not (first.parent / "old").exists()


def test_before_the_first_night(tmp_path: Path) -> None:
    """The page says so, rather than nothing."""
    assert "There was no night yet" in Page(Report(tmp_path, "small", START).write()).text


def _night(number: int, day: float, **more: object) -> Night:
    started = START + datetime.timedelta(days=day)
    return Night(number=number, release="small", started=started, **more)  # type: ignore[arg-type]


def test_a_clock_that_jumps_makes_no_years_of_holes() -> None:
    """One night in 2040 would hide all others behind ten years of empty months."""
    nights = [_night(1, 0), _night(2, 4000), _night(3, 2)]
    found = months(nights, (START + datetime.timedelta(days=2)).date(), 12)
    assert [month.first.year for month in found] == [2040, 2030]
    days = [day for month in found for week in month.weeks for day in week if day]
    assert sum(day.night is not None for day in days) == 3
    assert [day.date.day for day in days if day.missed] == [2]


@given(
    st.lists(
        st.tuples(
            st.none() | st.floats(0, 1e7, allow_nan=False),
            st.none() | st.integers(0, 1 << 40),
            st.none() | st.booleans(),
            st.integers(0, 9),
        ),
        max_size=100,
    )
)
def test_plots_stay_in_their_frame(figures: list[tuple[float | None, int | None, bool | None, int]]) -> None:
    """Whatever the figures are: one value only, all the same, gaps."""
    nights = [
        _night(
            number,
            number,
            outcome=Outcome.GOOD,
            figures=Figures(build_seconds=seconds, package_bytes=size, reproducible=same, flakes=flakes),
        )
        for number, (seconds, size, same, flakes) in enumerate(figures)
    ]
    for trend in TRENDS:
        drawn = plot(trend, nights)
        for x, y in re.findall(r'cx="(\S+)" cy="(\S+)"', drawn.svg):
            assert 0 <= float(x) <= 320
            assert 0 <= float(y) <= 120
        known = [night for night in nights if trend.value(night.figures) is not None]
        assert drawn.svg.count("<circle") == len(known)


def _browser(folder: Path, *words: str) -> str:
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")
    command = ["chromium", *options, f"--user-data-dir={folder}", "--allow-file-access-from-files", *words]
    env = {**os.environ, "HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.integration
@pytest.mark.parametrize("page", ["index.html", "nights/3.html", "nights/5.html"])
def test_pages_fit_a_phone(index: Path, tmp_path: Path, page: str) -> None:
    """Red nights are read on a phone, at breakfast: nothing may be cut off or need a scroll to the side."""
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"""<iframe src="{(index.parent / page).as_uri()}" width="360" height="740" onload="
        const page = this.contentDocument.documentElement;
        document.title = page.scrollWidth + ' ' + page.clientWidth;
        document.body.append('width: ' + page.scrollWidth + ' of ' + page.clientWidth)"></iframe>"""
    )
    text = _browser(tmp_path / "home", "--virtual-time-budget=3000", "--dump-dom", frame.as_uri())
    match = re.search(r"width: (\d+) of (\d+)", text)
    assert match is not None, text
    assert int(match[1]) <= int(match[2]) == 360
    assert "alert" not in text.partition("width:")[2]


@pytest.mark.integration
def test_the_browser_asks_nobody_for_anything(index: Path, tmp_path: Path) -> None:
    """A screenshot of the first page, kept for people; the network log must not name any host."""
    shot = Path(os.environ.get("REPORT_SCREENSHOT", tmp_path / "index.png"))
    log = tmp_path / "net.json"
    options = ("--window-size=900,1400", f"--screenshot={shot}", f"--log-net-log={log}")
    _browser(tmp_path / "home", *options, index.as_uri())
    assert shot.stat().st_size > 10_000
    assert "evil.example" not in log.read_text()


def test_a_night_leads_to_the_page_of_its_boots(site: Site, tmp_path: Path) -> None:
    """If this fails, nobody finds the consoles of a red night; no other HTML of a night is HTML here."""
    smoke = site.nightly.folder / NIGHTS / "5" / "smoke"
    made = {smoke / "results.html": "<p>boots</p>", smoke / "cases" / "x" / "results.html": HOSTILE}
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    report = Report(site.nightly.folder, "small", site.now).write(tmp_path / "report").parent
    assert "5/smoke/results.html" in Page(report / "nights/5.html").links
    assert (report / "nights/5/smoke/results.html").read_text() == "<p>boots</p>"
    assert (report / "nights/5/smoke/cases/x/results.html.txt").read_text() == HOSTILE
    for path in made:
        path.unlink()
