"""What a probe says: one line about one thing, and what to do where it is not as it should be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from pipeline.doctor.places import Answer, ask
from pipeline.image.lock import Lock, read_lock

if TYPE_CHECKING:
    from pipeline.release import Release
    from pipeline.settings import Settings


class State(StrEnum):
    """How a finding is meant; only trouble keeps a release from being made here."""

    FINE = "fine"
    NOTE = "note"
    TROUBLE = "trouble"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line: of which ``part`` of the host, about ``what``, and what was found.

    ``remedy`` is what to do; trouble always has one.
    """

    part: str
    what: str
    state: State
    says: str
    remedy: str = ""


@dataclass(frozen=True)
class Subject:
    """What is looked at: this host, with these settings, for this release."""

    settings: Settings
    release: Release

    @cached_property
    def locks(self) -> dict[str, Lock]:
        """The locks of the images that the release needs, by name; raises UsageError where one is missing."""
        from pipeline.image.definition import read_definition

        image = self.release.image
        return {
            name: read_lock(name)
            for name in dict.fromkeys((image, read_definition(image).packaging or image))
        }

    @cached_property
    def answers(self) -> Sequence[Answer]:
        """What the places of all that the release needs say; they are asked once."""
        return ask(self.release, self.locks, self.settings)

    @property
    def store(self) -> Path:
        """The store's folder, which may not be there yet."""
        return self.settings.open_store.root


Probe: TypeAlias = Callable[[Subject], Iterable[Finding]]
