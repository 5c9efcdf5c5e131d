"""Read a guest's configuration as xl does, and write one.

The format is xl.cfg(5), as libxlu_cfg reads it: assignments of strings, numbers and lists to names, parted by
ends of lines and semicolons; ``+=`` adds to what a name has. It is no Python, although files for xm were.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self, TypeAlias

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedInput, VisitError

from pipeline.errors import UsageError

MAX_CONFIG = 64 << 10
"""Bytes that a configuration may have."""
Value: TypeAlias = "str | list[Value]"

_GRAMMAR = r"""
    start: (_end | assignment _end)*
    assignment: NAME OPERATOR value
    ?value: STRING | NUMBER | values
    values: "[" _NL* (value _NL* ("," _NL* value _NL*)* ("," _NL*)?)? "]"
    _end: _NL | ";"

    NAME: /[a-z][._0-9a-z]*/
    NUMBER: /[0-9][0-9a-fx]*/
    STRING: /'([^'\\\n]|\\.)*'/ | /"([^"\\\n]|\\.)*"/
    OPERATOR: "=" | "+="
    _NL: /(#[^\n]*)?\n/
    %ignore /[ \t]+/
"""
_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    **{c: c for c in "\"'\\"},
}
_ESCAPED = {plain: f"\\{name}" for name, plain in _ESCAPES.items() if plain != "'"}


@dataclass(frozen=True)
class GuestConfig:
    """The settings of a guest, by name."""

    settings: Mapping[str, Value]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file. Raises UsageError where xl would not take it, with the line."""
        try:
            with path.open("rb") as file:
                data = file.read(MAX_CONFIG + 1)
        except OSError as e:
            raise UsageError(f"{path} cannot be read: {e.strerror}.") from e
        if len(data) > MAX_CONFIG:
            raise UsageError(f"{path} is no configuration of a guest: it has more than {MAX_CONFIG} B.")
        try:
            # A comment may be in any encoding.
            config = cls.parse(data.decode(errors="surrogateescape"))
            str(config).encode()
        except UnicodeEncodeError as e:
            raise UsageError(f"{path} is no configuration of a guest: its values are not UTF-8.") from e
        except ValueError as e:
            hint = "The format is that of xl.cfg(5), which is no Python."
            raise UsageError(f"{path} is not what xl takes: {e}.", hint=hint) from e
        return config

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what a text says. Raises ValueError with what is wrong where."""
        try:
            return cls(_Settings().transform(_parser().parse(text + "\n")))
        except UnexpectedInput as e:
            line = (text + "\n").split("\n")[max(e.line, 1) - 1].strip()
            raise ValueError(f"line {max(e.line, 1)}, near {line[:60]!r}") from e
        except VisitError as e:
            raise ValueError(str(e.orig_exc)) from e
        except RecursionError as e:
            raise ValueError("lists within lists within lists") from e

    def string(self, name: str) -> str:
        """Return a string or number, empty where there is none of that name. Raises UsageError for a list."""
        value = self.settings.get(name, "")
        if isinstance(value, list):
            raise UsageError(f"A guest's {name!r} is a list.")
        return value

    def strings(self, name: str) -> list[str]:
        """Return a list's strings. Raises UsageError for a string, which xl ignores, and lists in it."""
        value = self.settings.get(name, [])
        strings = [each for each in value if isinstance(each, str)]
        if isinstance(value, str) or len(strings) != len(value):
            raise UsageError(f"A guest's {name!r} is no list of strings.")
        return strings

    def number(self, name: str) -> int:
        """Return a number, 0 where there is none of that name. Raises UsageError for anything else."""
        text = self.string(name) or "0"
        # As strtol(3) takes it.
        base = 16 if text[:2] in ("0x", "0X") else 8 if text[0] == "0" else 10
        if not re.fullmatch("(0x)?[0-9a-f]{1,15}", text, re.IGNORECASE):
            raise UsageError(f"A guest's {name!r} is no number: {text!r}.")
        try:
            return int(text, base)
        except ValueError as e:
            raise UsageError(f"A guest's {name!r} is no number: {text!r}.") from e

    def but(self, **settings: Value) -> GuestConfig:
        """Return one with other settings."""
        return GuestConfig({**self.settings, **settings})

    def without(self, *names: str) -> GuestConfig:
        """Return one without some settings."""
        return GuestConfig({name: value for name, value in self.settings.items() if name not in names})

    def __str__(self) -> str:
        """A file that every xl reads: a line a setting, without ``+=``."""
        return "".join(f"{name} = {_written(value)}\n" for name, value in self.settings.items())


def _written(value: Value) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    return '"' + "".join(_ESCAPED.get(c, c) for c in value) + '"'


@cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr")


class _Settings(Transformer[Token, dict[str, Value]]):
    """Makes values of what the grammar found, from the leaves on."""

    def STRING(self, token: Token) -> str:  # noqa: N802  # The terminal's name.
        def plain(match: re.Match[str]) -> str:
            if match[1] not in _ESCAPES:
                raise ValueError(f"line {token.line}, the escape {match[0]!r}")
            return _ESCAPES[match[1]]

        return re.sub(r"\\(.)", plain, token[1:-1])

    def values(self, values: list[Value]) -> list[Value]:
        return values

    def assignment(self, parts: tuple[Token, Token, Token | list[Value]]) -> tuple[Token, str, Value]:
        name, operator, value = parts
        return name, str(operator), value if isinstance(value, list) else str(value)

    def start(self, assignments: list[tuple[Token, str, Value]]) -> dict[str, Value]:
        settings: dict[str, Value] = {}
        for name, operator, value in assignments:
            before = settings.get(str(name))
            if operator == "=" or before is None:
                settings[str(name)] = value
            elif isinstance(before, list) and isinstance(value, list):
                settings[str(name)] = [*before, *value]
            elif isinstance(before, str) and isinstance(value, str):
                settings[str(name)] = before + value
            else:
                raise ValueError(f"line {name.line}, which adds a string and a list")
        return settings
