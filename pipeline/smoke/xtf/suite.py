"""The suite of XTF: a folder of tests, words that choose from it, and what is remarkable of their results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.smoke.plan import Remark, Suite
from pipeline.smoke.xtf.cases import Framework
from pipeline.smoke.xtf.catalog import Catalog
from pipeline.smoke.xtf.expectations import LIST, Expectations

TOGETHER = 10
"""Tests on one machine: what one of them breaks, and Xen survives, cannot spoil many others."""
_NAMED = 8


def xtf(folder: Path, words: Sequence[str] = (), lists: Sequence[Path] = ()) -> Suite:
    """Return the tests in a folder that words stand for (see Catalog.select).

    ``lists`` are files with further expectations, which go before those of the project. Raises UsageError.
    """
    catalog = Catalog.read(folder)
    chosen = catalog.select(words)
    if not chosen:
        raise UsageError("No test of XTF is all of that.", hint="Kinds of words are intersected.")
    framework = Framework(catalog, chosen, Expectations.read((*lists, LIST)))
    return Suite(
        (), framework.cases(), framework.files(), together=TOGETHER, remarks=lambda: remarks(framework)
    )


def remarks(framework: Framework) -> tuple[Remark, ...]:
    """Return what results tell that no single case does."""
    found = []
    if framework.unlisted:
        names = _names(sorted(map(str, framework.unlisted)))
        found.append(Remark(f"Skipped, and on no list of tests that may: {names}.", red=True))
    if framework.catalog.unread:
        told = _names(f"{name} ({why})" for name, why in framework.catalog.unread.items())
        found.append(Remark(f"Not run, because info.json is not what xtf-runner takes: {told}."))
    known = [i for test in framework.catalog.tests.values() for i in test.instances()]
    if stale := framework.expected.stale(known):
        found.append(Remark(f"Listed, but not in {framework.catalog.folder}: {_names(stale)}."))
    return tuple(found)


def _names(names: Iterable[str]) -> str:
    names = list(names)
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + rest
