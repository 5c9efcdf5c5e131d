"""Shared libraries by their names: a new version is one line, and not three files gone and three new."""

from __future__ import annotations

import re
from collections.abc import Iterable

_VERSIONED = re.compile(r"^(?P<name>usr/lib/(?:.*/)?lib[^/]+\.so)\.(?P<version>[0-9][0-9.]*)$")


def compare(removed: Iterable[str], added: Iterable[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Pair libraries that are in both builds in different versions.

    Returns a line for each, and the paths that these lines stand for, links among them.
    """
    old, new = _versions(removed), _versions(added)
    lines, paths = [], set()
    for name in sorted(old.keys() & new.keys()):
        lines.append(f"{name}: {max(old[name], key=len)} → {max(new[name], key=len)}")
        paths |= {name, *(f"{name}.{version}" for version in (*old[name], *new[name]))}
    return tuple(lines), frozenset(paths)


def _versions(paths: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for match in filter(None, map(_VERSIONED.match, paths)):
        found.setdefault(match["name"], []).append(match["version"])
    return found
