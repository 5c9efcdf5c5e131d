"""Where faults are planted: a copy of the project at a point of the road, and what it must come to."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.checkouts import Checkout, Finished, running_in

PLACE = "http://mirror.example/"
"""Where the small package's source is pinned to be; each copy's settings say which server that is."""


@dataclass(frozen=True)
class Step:
    """One command: its words, the step before which must be done, and which files are its result."""

    words: tuple[str, ...]
    after: str | None
    results: tuple[str, ...]


STEPS: Mapping[str, Step] = {
    "fetch": Step(("fetch", "small"), None, ("store/sha256/*/*",)),
    "recipe": Step(("recipe", "small"), "fetch", ("artifacts/small/aur/*", "artifacts/small/aur/.SRCINFO")),
    "build": Step(
        ("build", "small"),
        "fetch",
        (
            "artifacts/small/latest/*.pkg.tar.xz",
            "artifacts/small/latest/aur/*",
            "artifacts/small/latest/lock*",
        ),
    ),
    "check": Step(("check", "small"), "build", ("artifacts/small/latest/check-findings.json",)),
    "bundle": Step(
        ("bundle", "small", "--allow-unproven"), "build", ("artifacts/small/latest/*.pkg.tar.xz",)
    ),
    "publish": Step(
        ("publish", "small", "--allow-unproven"),
        "build",
        ("artifacts/repo/stable/x86_64/*.pkg.tar.xz", "artifacts/small/latest/*.pkg.tar.xz"),
    ),
}


@dataclass
class Ground:
    """A copy of the project before one step."""

    folder: Path
    step: Step
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def checkout(self) -> Checkout:
        return Checkout(self.folder / "project", self.folder / "store", self.environment)

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def artifacts(self) -> Path:
        return self.folder / "project" / "artifacts"

    @property
    def latest(self) -> Path:
        return self.artifacts / "small" / "latest"

    def run(self, *, env: Mapping[str, str] | None = None, prefix: tuple[str, ...] = ()) -> Finished:
        """Do the step."""
        return self.checkout.run(*self.step.words, env=env, prefix=prefix)

    def result(self) -> dict[str, str]:
        """The SHA-256 of all that the step makes, by name; an image in the store is not of its making."""
        roots = {"store": self.store, "artifacts": self.artifacts}
        found = {}
        for pattern in self.step.results:
            top, _, rest = pattern.partition("/")
            for path in sorted(roots[top].glob(rest)):
                if path.is_file() and path.stat().st_size < 50 << 20:
                    name = f"{top}/{path.relative_to(roots[top])}"
                    found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def left_behind(self) -> list[str]:
        """What lies about that is neither a result, nor a lock, nor a partial download to go on with."""
        found = [*(self.store / "scratch").glob("*"), *(self.store / "tmp").glob("*.new")]
        found += [path for path in self.artifacts.rglob("*") if ".scratch" in path.name]
        return [*map(str, found), *running_in(self.folder)]


@dataclass(frozen=True)
class Field:
    """Copies of the project at every point of the road, made once, and what an undisturbed run makes."""

    folder: Path
    server: Callable[[], str]

    def ground(self, name: str, target: Path) -> Ground:
        """Copy the project as it is before a step; entries of the store are copied, for they are damaged."""
        step = STEPS[name]
        shutil.copytree(self.folder / (step.after or "start"), target, symlinks=True, copy_function=_copy)
        settings = (
            f'pipeline:\n  release: small\n  mirrors:\n    rewrites:\n      "{PLACE}": ["{self.server()}"]\n'
        )
        (target / "project" / "invoke.yaml").write_text(settings)
        return Ground(target, step)

    def undisturbed(self, name: str) -> dict[str, str]:
        """What the step makes where nothing goes wrong."""
        return Ground(self.folder / name, STEPS[name]).result()


def _copy(source: str, target: str) -> None:
    """Copy a file; a large one, an image's tar, is linked, and no fault touches it."""
    if Path(source).stat().st_size > 50 << 20:
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def points() -> Iterator[tuple[str, str | None]]:
    """The steps in an order in which each comes after the one that it needs."""
    for name, step in STEPS.items():
        yield name, step.after
