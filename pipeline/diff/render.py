"""Writes differences as text for a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from pipeline import log
from pipeline.diff.compare import SAME_SIZE, Change, Difference

_FEW = 10
_SIZE = re.compile(r"([+-][0-9,]+) bytes of [0-9,]+")
_SENTENCES = ("optdepend", "pkgdesc", "url")


def render(differences: Sequence[Difference]) -> str:
    """Return the differences, a package after the other; one line where there are none."""
    if all(difference.same for difference in differences):
        return "The packages hold the same."
    return "\n\n".join("\n".join(map(_line, _package(difference))) for difference in differences)


def _line(text: str) -> str:
    """A line that no file's name can break, or make a terminal obey."""
    return log.plain(text).replace("\n", "\\n")


def _package(found: Difference) -> Iterator[str]:
    if found.before is None or found.after is None:
        yield f"{found.name}: only in the {'second' if found.before is None else 'first'} build"
        return
    if found.same:
        yield f"{found.name} {found.after}: the same"
        return
    versions = found.after if found.before == found.after else f"{found.before} → {found.after}"
    before, after = found.sizes
    yield f"{found.name} {versions}, {log.size(after)} installed ({after - before:+,} bytes)"
    yield from _metadata(found.metadata)
    yield from _block("libraries", found.libraries)
    yield from _block("added", [f"+ {path}" for path in found.added])
    yield from _block("removed", [f"- {path}" for path in found.removed])
    yield from _block("changed", _changed(found.changed))
    yield from _files("settings", found.settings or {})
    yield from _files("build options", found.kconfig or {})
    yield from _files("manual pages", found.options or {})


def _metadata(lines: Sequence[str]) -> Iterator[str]:
    """One line for what is gone and one for what is new of each key; sentences have lines of their own."""
    words: dict[str, list[str]] = {}
    for line in lines:
        sign, key, value = line.split(" ", 2)
        if key in _SENTENCES:
            words[line] = []
        else:
            words.setdefault(f"{sign} {key}", []).append(value)
    yield from _block(
        "metadata", [" ".join((head, ", ".join(rest))).rstrip() for head, rest in words.items()]
    )


def _changed(changes: Sequence[Change]) -> list[str]:
    """Many files of a folder that changed in content alone are a number: they were only compiled again."""
    folders: dict[str, list[Change]] = {}
    for change in changes:
        if change.what == SAME_SIZE or _SIZE.fullmatch(change.what):
            folders.setdefault(_folder(change.path), []).append(change)
    many = {folder: these for folder, these in folders.items() if len(these) > _FEW}
    counted = {change.path for these in many.values() for change in these}
    lines = [f"{change.path}: {change.what}" for change in changes if change.path not in counted]
    for folder, these in many.items():
        grown = sum(int(m[1].replace(",", "")) for c in these if (m := _SIZE.fullmatch(c.what)))
        same = sum(change.what == SAME_SIZE for change in these)
        lines.append(
            f"{folder}: {len(these)} files, {grown:+,} bytes" + (f", {same} with {SAME_SIZE}" if same else "")
        )
    return lines


def _folder(path: str) -> str:
    """What a file is counted with: usr/share/man, usr/include, usr/lib, etc/xen."""
    parts = path.split("/")[:-1]
    return "/".join(parts[: 3 if parts[:2] == ["usr", "share"] else 2]) + "/"


def _block(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield f"  {title} ({len(lines)})"
        yield from (f"    {line}" for line in lines)


def _files(title: str, files: Mapping[str, Sequence[str]]) -> Iterator[str]:
    if files:
        yield f"  {title} ({len(files)})"
    for path, lines in files.items():
        yield f"    {path}"
        yield from (f"      {line}" for line in lines)
