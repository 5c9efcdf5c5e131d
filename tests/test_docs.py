"""Every command in README and docs/: it exists as it is written there, and what is cheap is run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from invoke.vendor import yaml

from pipeline.cli import main
from pipeline.settings import Settings
from tests import checkouts
from tests.checkouts import PROJECT, Checkout

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
_INLINE = re.compile(r"`((?:INVOKE_\w+=\S+ )*\./inv [^`]+)`")
_PROMPT = re.compile(r"^(?:[#$] )?((?:[A-Z_]+=\S+ )*(?:\S*/)?inv .*)$")
# Words that stand for what readers put there themselves.
_STANDS_FOR = {
    "RELEASE": "4.17",
    "[RELEASE]": "4.17",
    "NAME": "debian-bookworm",
    "COMMAND": "build",
    "[NAME]": "debian-bookworm",
    "...": "",
    "…": "",
}
CHEAP = ("--list", "--help", "doctor", "manual", "completion")


def commands(page: Path) -> list[str]:
    """The ./inv commands of a page: lines of its blocks, and what stands in the text as code."""
    text = page.read_text(encoding="utf-8")
    found = [" ".join(line.split()) for line in _INLINE.findall(text)]
    # What stands between fences, but for settings and the like: every other part of a split at them.
    for block in re.split(r"^```", text, flags=re.MULTILINE)[1::2]:
        language, _, body = block.partition("\n")
        if language in ("", "console", "sh"):
            lines = body.replace("\\\n", " ").splitlines()
            found += [match[1] for line in lines if (match := _PROMPT.match(line.strip()))]
    return list(dict.fromkeys(found))


ALL = [pytest.param(command, id=f"{page.name}: {command}") for page in PAGES for command in commands(page)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    folder = tmp_path_factory.mktemp("docs")
    env = {"INVOKE_PIPELINE_RELEASE": "4.17", "HOME": str(folder), "XDG_DATA_HOME": "", "XDG_CONFIG_HOME": ""}
    return Checkout(checkouts.copy(folder / "copy"), folder / "store", env)


def arguments(command: str) -> list[str]:
    """The words after ./inv, with something real in the place of what stands for it."""
    words = shlex.split(command.split(" && ")[0].split(" | ")[0], comments=True)
    while not words[0].endswith("inv"):
        words.pop(0)  # variables
    return [word for word in (_STANDS_FOR.get(word, word) for word in words[1:]) if word]


@pytest.mark.parametrize("command", ALL)
def test_a_command_of_the_docs_is_understood(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Docs that name an option which is gone cost a reader more than none."""
    words = arguments(command)
    if words[:1] == ["--help"] or words[:1] == ["--list"]:
        assert main(PROJECT, words) == 0
        return
    # An option that nobody knows, at the end: it is reached only where all before it was understood, and
    # nothing is carried out before all of a line is.
    assert main(PROJECT, [*words, "--no-such-option"]) == 2
    assert "--no-such-option" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [p for p in ALL if arguments(str(p.values[0]))[:1] and arguments(str(p.values[0]))[0] in CHEAP]
)
def test_what_is_cheap_is_run(checkout: Checkout, command: str) -> None:
    """What reads well may still not work."""
    ended = checkout.run(*arguments(command), env={"DOCKER_HOST": "unix:///nonexistent"})
    assert ended.status in (0, 3), ended.err
    assert "Traceback" not in ended.err
    assert ended.out


def test_pages_name_files_that_exist() -> None:
    """A link that leads nowhere is the first thing that a newcomer clicks."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page.name, target)


def test_every_page_is_named_in_readme() -> None:
    """A page that nobody finds was written for nobody."""
    readme = PAGES[0].read_text(encoding="utf-8")
    linked = set(re.findall(r"docs/([a-z-]+\.md)", readme))
    for page in PAGES[1:]:
        from_others = any(f"({page.name}" in other.read_text() for other in PAGES[1:] if other != page)
        assert page.name in linked or from_others, page.name


def test_settings_of_the_docs_are_those_that_there_are() -> None:
    """A setting that is misspelt in the docs is misspelt by everybody."""
    text = (PROJECT / "docs" / "settings.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    table = yaml.safe_load(block)["pipeline"]  # type: ignore[no-untyped-call]
    read, default = Settings.read(table), Settings()
    assert {name: getattr(read, name) or None for name in table} == {
        name: getattr(default, name) or None for name in table
    }
    missing = set(Settings.__struct_fields__) - table.keys()
    assert not {name for name in missing if name not in text}
