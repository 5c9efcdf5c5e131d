"""Reads the project's own TOML files into frozen types; a mistake is one sentence naming file and key."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pipeline.errors import UsageError

T = TypeVar("T")


def read_toml(path: Path, kind: type[T]) -> T:
    """Read ``path`` as ``kind``.

    Raises UsageError naming the file and the key for anything that ``kind`` does not allow.
    """
    return convert(path, load_toml(path), kind)


def load_toml(path: Path) -> dict[str, Any]:
    """Read the table that is in ``path``; raises UsageError where there is none."""
    try:
        # Looked at first: opening a FIFO would wait for a writer.
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is not a regular file.")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        # Besides TOMLDecodeError and UnicodeDecodeError: numbers and nesting beyond Python's limits.
        raise UsageError(f"{path} is not valid TOML: {e}.") from e
    except OSError as e:
        raise UsageError(f"{path} cannot be read: {e.strerror}.") from e


def overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay one table over another: tables are merged, everything else is replaced."""
    merged = {**below, **above}
    for key, value in above.items():
        under = below.get(key)
        if isinstance(value, dict) and isinstance(under, dict):
            merged[key] = overlay(under, value)
    return merged


def convert(path: Path, data: dict[str, Any], kind: type[T]) -> T:
    """Make a ``kind`` of a table that was read from ``path``; raises UsageError as read_toml does."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as e:
        # msgspec ends its message with a JSON path, such as "- at `$.sources[0].sha256`".
        problem, _, where = str(e).partition(" - at ")
        key = where.strip("`").removeprefix("$.") or "the top level"
        raise UsageError(f"{path}: {problem} (at {key}).") from e


def toml_inline(values: dict[str, str | int]) -> str:
    """Render a flat table on one line, so that a diff of two lock files has a line a package."""
    # A JSON string or integer is also a TOML one, but for DEL (TOML 1.0, "String" and "Integer").
    fields = (f"{key} = {msgspec.json.encode(value).decode()}" for key, value in values.items())
    return "{ " + ", ".join(fields).replace("\x7f", "\\u007f") + " }"
