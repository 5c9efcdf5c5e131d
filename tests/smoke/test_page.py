"""The page of a run: whole, by itself, and unmoved by what the machine printed."""

from __future__ import annotations

import base64
import html.parser
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.smoke import page
from pipeline.smoke.results import CaseResult, Verdict
from tests.smoke.test_results import made
from tests.smoke.test_timeline import DIRECT

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
HOSTILE = '</pre><script>alert(1)</script><img src="http://example.org/x"> \x1b[2J \u202e {{ 7*7 }}'


class Elements(html.parser.HTMLParser):
    """Collects the elements of a page, and all that its attributes would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def red(name: str = "pv-guest", **more: object) -> CaseResult:
    case = CaseResult(
        name=name,
        title="a guest boots",
        verdict=Verdict.FAIL,
        evidence="The guest did not come to its init.",
        failure="CheckFailedError",
        file="usr/bin/xl",
        seconds=2.0,
        rerun=("./inv", "smoke", "4.17", "--case", name),
    )
    return msgspec.structs.replace(case, **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cases/pv-guest").mkdir(parents=True)
    (tmp_path / "serial.log").write_text(DIRECT)
    (tmp_path / "cases/pv-guest/console.log").write_text("the guest's last words")
    (tmp_path / "cases/pv-guest/screen.png").write_bytes(PNG)
    return tmp_path


def test_page_has_all_that_a_failure_asks_for(folder: Path) -> None:
    """If this fails, who looks at a red run has to search for console, screenshot or command."""
    logs = ("cases/pv-guest/console.log", "cases/pv-guest/screen.png")
    booted = CaseResult(
        name="xenfs", title="xenfs", verdict=Verdict.PASS, begin=15.9, seconds=2.0, logs=("serial.log",)
    )
    result = msgspec.structs.replace(made(booted, red(logs=logs)), notes=("A note.",))
    written = page.write(result, folder)
    found = Elements(written.read_text())
    for text in (
        "The guest did not come to its init.",
        "the guest's last words",
        "./inv smoke 4.17 --case pv-guest --attach",
        "/usr/bin/xl",
        "tcg: The CPU has neither vmx nor svm.",
        "QEMU 7.2",
        "0" * 64,
        "dom0 kernel",
        "qemu-system-x86_64",
        "A note.",
    ):
        assert text in found.text
    assert ("src", f"data:image/png;base64,{base64.b64encode(PNG).decode()}") in found.attributes
    # The part of the serial log that belongs to the case, and no other.
    excerpt = next(part for part in page.render(result, folder).split("<details>") if "from 15.9 s" in part)
    assert "smoke: xenfs: 0" in excerpt
    assert "about to get started" not in excerpt
    assert "Hardware Dom0 halted" not in excerpt


def test_page_needs_nothing_else(folder: Path) -> None:
    """If this fails, the page asks other servers for something, and tells them who reads it."""
    found = Elements(page.render(made(red()), folder))
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(found.tags)
    for name, value in found.attributes:
        if name in ("src", "href", "action", "style", "srcset"):
            assert value.startswith(("data:image/png;base64,", "#"))
        assert not name.startswith("on")


def test_consoles_can_do_nothing(folder: Path) -> None:
    """If this fails, a guest that prints HTML writes into the page of who looks at its console."""
    (folder / "cases/pv-guest/console.log").write_text(HOSTILE)
    (folder / "serial.log").write_text(f"[     1.000] {HOSTILE}\n")
    case = red(evidence=HOSTILE, detail=HOSTILE, title=HOSTILE, logs=("cases/pv-guest/console.log",))
    text = page.render(made(case), folder)
    found = Elements(text)
    assert "script" not in found.tags
    assert "img" not in found.tags
    assert "{{ 7*7 }}" in found.text
    assert not {"\x1b", "\u202e"} & set(text)


def test_logs_are_bounded_and_stay_in_the_folder(folder: Path) -> None:
    """If this fails, a guest that prints without end breaks the page, or a path leaks a file into it."""
    (folder / "cases/pv-guest/console.log").write_text("begin" + "x" * 3 * page.MAX_LOG + "end")
    (folder.parent / "secret").write_text("not of this run")
    (folder / "cases/pv-guest/broken.png").write_bytes(b"<svg onload=alert(1)>")
    logs = ("cases/pv-guest/console.log", "../secret", "cases/pv-guest/broken.png", "gone.log")
    text = page.render(made(red(logs=logs)), folder)
    assert "xend" in text
    assert "beginx" not in text
    assert "(its end)" in text
    assert "not of this run" not in text
    assert "onload" not in text
    assert len(text) < 3 * page.MAX_LOG


@settings(max_examples=30, deadline=None)
@given(st.text(), st.text())
def test_any_text_makes_a_page(one: str, other: str) -> None:
    """If this fails, something that a machine can print leaves a run without its page."""
    case = red(evidence=one, detail=other, title=one + other)
    found = Elements(page.render(made(case), Path("/nonexistent")))
    assert found.tags.count("script") == 0
    assert "details" in found.tags
