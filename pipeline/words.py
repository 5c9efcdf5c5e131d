"""What the words of a command line are, where Invoke's own reading is not what users expect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from invoke.parser.context import ParserContext

OPTIONAL = ("release", "target", "name", "shell")
"""Arguments that may be given without their names; a command has one of them at most."""


class Role(Enum):
    """What a word is."""

    COMMAND = auto()
    OPTION = auto()
    VALUE = auto()
    """Of the option before it."""
    ARGUMENT = auto()


@dataclass(frozen=True)
class Word:
    """A word, and the command that it stands behind (or names), also as it was typed: it may be an alias."""

    text: str
    role: Role
    command: ParserContext | None
    typed: str


def read(words: Sequence[str], commands: Sequence[ParserContext]) -> Iterator[Word]:
    """Say of each word what it is."""
    by_name = {name: c for c in commands for name in (c.name, *c.aliases)}
    command: ParserContext | None = None
    typed, value_comes = "", False
    for word in words:
        if value_comes:
            role, value_comes = Role.VALUE, False
        elif word.startswith("-"):
            role = Role.OPTION
            flag = None if command is None else command.flags.get(word)
            value_comes = flag is not None and flag.takes_value
        elif word in by_name:
            role, command, typed = Role.COMMAND, by_name[word], word
        else:
            role = Role.ARGUMENT
        yield Word(word, role, command, typed)


def asks_about(words: Sequence[str], commands: Sequence[ParserContext]) -> str | None:
    """The command that ``COMMAND --help`` asks about.

    Invoke takes the word for the argument of a command that cannot go without one.
    """
    for word in read(words, commands):
        if word.command is not None and word.role is Role.OPTION and word.text in ("--help", "-h"):
            return word.typed
    return None


def spell_out(words: Sequence[str], commands: Sequence[ParserContext]) -> list[str]:
    """Turn ``build 4.17`` into ``build --release=4.17``.

    Invoke demands every positional argument that it knows of; ours may be left out. So a word that is
    neither a command, nor an option, nor an option's value stands for the command's OPTIONAL argument.
    """
    result: list[str] = []
    for word in read(words, commands):
        names = [name for name in OPTIONAL if word.command is not None and name in word.command.args]
        given = word.role is Role.ARGUMENT and names
        result.append(f"--{names[0]}={word.text}" if given else word.text)
    return result
