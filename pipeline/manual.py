"""The manual page xen-aur-pipeline(7): the commands' own help, README's table of statuses, and docs/."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from invoke.parser.context import ParserContext

from pipeline import files
from pipeline.overview import Command, grouped
from pipeline.run import run
from pipeline.version import PROJECT

NAME = "xen-aur-pipeline"
_PARAGRAPH = re.compile(r"^(\.S[HS]\n.*\n)\.[PL]P\n", re.MULTILINE)
"""A paragraph that begins where a section does, which says nothing."""
_PAGE = re.compile(r"\]\(docs/([a-z-]+\.md)\)")


def install(commands: Sequence[Command], contexts: Mapping[str, ParserContext], output: Path | None) -> Path:
    """Write the page where man(1) finds this user's, or to ``output``; return the path.

    Raises ToolMissingError where lowdown(1) is missing.
    """
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    path = output or Path(data) / "man/man7" / f"{NAME}.7"
    files.write_text(path, render(markdown(commands, contexts)))
    return path


def render(text: str) -> str:
    """Make a page for man(1) of Markdown, by lowdown(1)."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    meta = {"title": NAME, "section": "7", "date": today, "source": NAME, "volume": "Xen for Arch Linux"}
    options = [option for key, value in meta.items() for option in ("-M", f"{key}={value}")]
    said = run(
        ["lowdown", "-s", "-Tman", "--out-no-smarty", "--nroff-nolinks", *options],
        input=text.encode(),
        merge_stderr=False,
    ).output
    # Its font for code is groff's own, which other readers of man pages do not know.
    said = said.replace(r"\fC", r"\fB")
    return _PARAGRAPH.sub(r"\1", said)


def markdown(commands: Sequence[Command], contexts: Mapping[str, ParserContext]) -> str:
    """Put the page together; ``contexts`` has the commands' options by name."""
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    parts = [
        f"# NAME\n\n{NAME} - {_title(readme)}",
        "# SYNOPSIS\n\n`./inv` COMMAND [RELEASE | FILE | NAME] [OPTION...] [COMMAND...]",
        "# DESCRIPTION\n\n" + _introduction(readme),
        "# COMMANDS",
    ]
    for title, members in grouped(commands).items():
        parts += [f"## {title}", *(_command(member, contexts[member.name]) for member in members)]
    parts.append("# EXIT STATUS\n\n" + _table(readme, "| exit status"))
    for page in dict.fromkeys(_PAGE.findall(readme)):
        parts.append(_chapter((PROJECT / "docs" / page).read_text(encoding="utf-8")))
    return "\n\n".join(parts) + "\n"


def _title(readme: str) -> str:
    first = readme.partition("\n")[0].removeprefix("# ")
    return first[0].upper() + first[1:]


def _introduction(readme: str) -> str:
    """What README says before its first example."""
    return readme.partition("\n\n")[2].partition("\n\nOn a fresh")[0]


def _table(text: str, header: str) -> str:
    return text[text.index(header) :].partition("\n\n")[0]


def _command(command: Command, context: ParserContext) -> str:
    """A command: how it is used, what it does, and its options."""
    body, _, example = command.text.rpartition("Example: ")
    paragraphs = [" ".join(paragraph.split()) for paragraph in body.strip().split("\n\n")]
    lines = [f"**{command.name}**", *paragraphs]
    options = [
        f"- `--{str(argument.name).replace('_', '-').rstrip('-')}`: {argument.help}"
        for argument in context.args.values()
        if argument.help
    ]
    if options:
        lines.append("\n".join(options))
    return "\n\n".join([*lines, f"```\n{example.strip()}\n```"])


def _chapter(text: str) -> str:
    """A page of docs/ as a section: its title in capitals, as man pages have them."""
    title, _, body = text.partition("\n")
    return f"# {title.removeprefix('# ').upper()}\n{body.rstrip()}"
