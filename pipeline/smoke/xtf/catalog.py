"""Read a folder of built XTF tests, and pick tests out of it, as xtf-runner does.

``tests/NAME/`` has info.json, and for each environment the kernel ``test-ENV-NAME`` and a guest's
configuration ``test-ENV-NAME.cfg``; where a test has variations, a ``test-ENV-NAME~VARIATION.cfg`` each. The
folder is not ours: what is read is bounded, and nothing outside of it is reached through it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from pipeline.errors import UsageError

DEFAULT_CATEGORIES = frozenset({"functional", "xsa"})
OTHER_CATEGORIES = frozenset({"special", "utility", "in-development"})
"""Run only when one is asked for by its own or its test's name."""
PV = frozenset({"pv64", "pv32pae"})
HVM = frozenset({"hvm64", "hvm32pae", "hvm32pse", "hvm32"})
ENVIRONMENTS = PV | HVM
MAX_INFO = 64 << 10
MAX_FILE = 16 << 20
"""Bytes that a test's kernel or configuration may have."""
MAX_TESTS = 4096

_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}")


_NAMED = re.compile(rf"(?:test-)?({'|'.join(sorted(ENVIRONMENTS))})-(.*)", re.DOTALL)


class _Info(msgspec.Struct, frozen=True):
    name: str
    category: str
    environments: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=16)]
    variations: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)]


@dataclass(frozen=True, order=True)
class Instance:
    """A test in one environment, with one variation where it has any; sorted as xtf-runner sorts."""

    name: str
    environment: str
    variation: str = ""

    def __str__(self) -> str:
        return self.kernel + (f"~{self.variation}" if self.variation else "")

    @property
    def kernel(self) -> str:
        """The name of the kernel's file."""
        return f"test-{self.environment}-{self.name}"

    @property
    def config(self) -> str:
        """The name of the configuration's file."""
        return f"{self}.cfg"

    @property
    def needs(self) -> frozenset[str]:
        """The capabilities that Xen must have for it (see caps.py)."""
        if self.environment in HVM:
            needs = {"hvm"}
        else:
            needs = {"pv"} | ({"pv32"} if self.environment == "pv32pae" else set())
        return frozenset(needs | ({"hap", "shadow"} & {self.variation}))


@dataclass(frozen=True)
class Entry:
    """What a test's info.json says."""

    name: str
    category: str
    environments: tuple[str, ...]
    variations: tuple[str, ...]

    def instances(
        self, environments: Collection[str] = ENVIRONMENTS, variation: str | None = None
    ) -> list[Instance]:
        """Return the test in its environments, or those of them that are named, with each variation."""
        variations = [v for v in self.variations if variation in (None, v)] or [""]
        return [Instance(self.name, e, v) for e in self.environments if e in environments for v in variations]


@dataclass(frozen=True)
class Catalog:
    """The tests in a folder, by name. ``unread`` says of folders with a bad info.json what is wrong there."""

    folder: Path
    tests: dict[str, Entry]
    unread: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> Catalog:
        """Read a folder of built tests. Raises UsageError where there are none."""
        tests: dict[str, Entry] = {}
        unread: dict[str, str] = {}
        try:
            names = sorted(path.name for path in (folder / "tests").iterdir())
        except OSError as e:
            raise UsageError(
                f"{folder} is no Xen Test Framework: {folder / 'tests'} cannot be read ({e.strerror}).",
                hint="--xtf names the folder that xtf-runner is in, after make.",
            ) from e
        if len(names) > MAX_TESTS:
            raise UsageError(f"{folder / 'tests'} has more than {MAX_TESTS} entries.")
        for name in names:
            try:
                tests[name] = parse_info(name, _read(folder, Path("tests") / name / "info.json", MAX_INFO))
            except FileNotFoundError:
                continue
            # RuntimeError: a loop of links.
            except (ValueError, OSError, RuntimeError, msgspec.MsgspecError) as e:
                unread[os.fsencode(name).decode(errors="replace")] = str(e)
        if not tests:
            raise UsageError(f"{folder / 'tests'} has no test in it.", hint="Is it built?")
        return cls(folder, tests, unread)

    def select(self, words: Sequence[str]) -> list[Instance]:
        """Return what words mean to xtf-runner: categories, environments, pv, hvm, and tests.

        Words of a kind are added up, kinds are intersected; no word means all of the default categories. A
        test is named ``[[test-]ENV-]NAME[~VARIATION]``. Raises UsageError for a word that is nothing of that.
        """
        rest = set(words)
        categories = rest & (DEFAULT_CATEGORIES | OTHER_CATEGORIES)
        environments = rest & ENVIRONMENTS
        if "pv" in rest:
            environments |= PV
        if "hvm" in rest:
            environments |= HVM
        named = {i for word in rest - categories - ENVIRONMENTS - {"pv", "hvm"} for i in self._named(word)}
        if not words:
            categories = set(DEFAULT_CATEGORIES)
        return sorted(self._intersect(categories, environments, named))

    def _intersect(self, categories: set[str], environments: set[str], named: set[Instance]) -> set[Instance]:
        found = self._of(categories)
        if environments:
            if not found:
                # Those of other categories only where something asks for one of them.
                asked = categories | {self.tests[instance.name].category for instance in named}
                others = OTHER_CATEGORIES if asked & OTHER_CATEGORIES else frozenset()
                found = self._of(DEFAULT_CATEGORIES | others)
            found = {instance for instance in found if instance.environment in environments}
        if not named:
            return found
        return found & named if found else named

    def _of(self, categories: Collection[str]) -> set[Instance]:
        return {i for test in self.tests.values() if test.category in categories for i in test.instances()}

    def _named(self, word: str) -> list[Instance]:
        name, tilde, variation = word.partition("~")
        environment = None
        if (match := _NAMED.fullmatch(name)) is not None:
            environment, name = match.groups()
        test = self.tests.get(name)
        if test is None:
            raise UsageError(f"XTF has no test {word!r}.", hint=f"Tests: {', '.join(sorted(self.tests))}.")
        if environment is not None and environment not in test.environments:
            raise UsageError(f"XTF's test {name} has no environment {environment}.")
        if tilde and variation not in test.variations:
            raise UsageError(f"XTF's test {name} has no variation {variation!r}.")
        return test.instances({environment} if environment else ENVIRONMENTS, variation if tilde else None)

    def file(self, name: str, file: str) -> bytes:
        """Return a file of a test. Raises OSError; ValueError for one too large or outside of the folder."""
        return _read(self.folder, Path("tests") / name / file, MAX_FILE)


def parse_info(name: str, data: bytes) -> Entry:
    """Read the info.json of the test in folder ``name``.

    Raises ValueError or msgspec.MsgspecError for what xtf-runner would not take.
    """
    try:
        info = msgspec.json.decode(data, type=_Info)
    except RecursionError as e:
        raise ValueError("it is nested beyond all measure") from e
    if info.name != name:
        raise ValueError(f"info.json is about the test {info.name!r}")
    if info.category not in DEFAULT_CATEGORIES | OTHER_CATEGORIES:
        raise ValueError(f"there is no category {info.category!r}")
    for environment in info.environments:
        if environment not in ENVIRONMENTS:
            raise ValueError(f"there is no environment {environment!r}")
    for word in (info.name, *info.variations):
        if not _WORD.fullmatch(word):
            raise ValueError(f"{word!r} is no name for a file")
    unique = (tuple(dict.fromkeys(values)) for values in (info.environments, info.variations))
    return Entry(info.name, info.category, *unique)


def _read(folder: Path, path: Path, limit: int) -> bytes:
    real = (folder / path).resolve(strict=True)
    if not real.is_relative_to(folder.resolve()):
        raise ValueError(f"{path} leads out of the folder")
    if not real.is_file():
        raise ValueError(f"{path} is no file")
    with real.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path} is larger than {limit} bytes")
    return data
