"""The commands by what they are for: the order in which --list and the manual show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from invoke.collection import Collection
from invoke.tasks import Task

GROUPS: Mapping[str, Sequence[str]] = {
    "Begin here": ("setup", "doctor", "release", "completion", "manual"),
    "A release, step by step": (
        *("fetch", "image", "image.lock", "recipe", "build", "check", "reproduce", "smoke", "diff", "sign"),
    ),
    "Hand packages on": (*("verify", "bundle", "receive", "send", "publish", "serve", "aur.push"),),
    "Every night": ("nightly", "nightly.install", "nightly.resolve", "bisect", "report", "farm"),
    "The project itself": ("test", "lint"),
}


@dataclass(frozen=True)
class Command:
    """A command as users type it, and its documentation."""

    name: str
    text: str

    @property
    def summary(self) -> str:
        """The first paragraph, on one line."""
        return " ".join(self.text.partition("\n\n")[0].split())


def grouped(commands: Sequence[Command]) -> dict[str, list[Command]]:
    """Part the commands into their groups; what no group names comes last."""
    by_name = {command.name: command for command in commands}
    found = {
        title: [by_name.pop(name) for name in names if name in by_name] for title, names in GROUPS.items()
    }
    if by_name:
        found["More"] = list(by_name.values())
    return {title: members for title, members in found.items() if members}


def commands(collection: Collection) -> list[Command]:
    """The commands of a collection and those below it; a default one goes by its collection's name."""
    found = []
    for name, aliases in collection.task_names.items():
        task: Task[Any] = collection[name]
        found.append(Command(next(iter(aliases), name), task.__doc__ or ""))
    return found
