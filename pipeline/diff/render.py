"""Writes differences as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline.diff.compare import SAME_SIZE, Change, Difference

_FEW = 10


def render(differences: Sequence[Difference]) -> str:
    """Return the differences, a package after the other; one line where there are none."""
    if all(difference.same for difference in differences):
        return "The packages hold the same."
    return "\n\n".join("\n".join(_package(difference)) for difference in differences)


def _package(found: Difference) -> Iterator[str]:
    if found.before is None or found.after is None:
        yield f"{found.name}: only in the {'second' if found.before is None else 'first'} build"
        return
    if found.same:
        yield f"{found.name} {found.after}: the same"
        return
    versions = found.after if found.before == found.after else f"{found.before} → {found.after}"
    yield f"{found.name} {versions}, {found.size:+,} bytes installed"
    yield from _block("metadata", found.metadata)
    yield from _block("added", [f"+ {path}" for path in found.added])
    yield from _block("removed", [f"- {path}" for path in found.removed])
    yield from _block("changed", _changed(found.changed))
    yield from _files("settings", found.settings or {})
    yield from _files("manual pages", found.options or {})


def _changed(changes: Sequence[Change]) -> list[str]:
    """Programs that were only compiled again differ by their content alone: many of them are a number."""
    content = [change for change in changes if change.what == SAME_SIZE]
    shown = [change for change in changes if len(content) <= _FEW or change.what != SAME_SIZE]
    lines = [f"{change.path}: {change.what}" for change in shown]
    return lines if len(content) <= _FEW else [*lines, f"{len(content)} files: {SAME_SIZE}"]


def _block(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield f"  {title} ({len(lines)})"
        yield from (f"    {line}" for line in lines)


def _files(title: str, files: Mapping[str, Sequence[str]]) -> Iterator[str]:
    if files:
        yield f"  {title}"
    for path, lines in files.items():
        yield f"    {path}"
        yield from (f"      {line}" for line in lines)
