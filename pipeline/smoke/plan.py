"""What a run is to make, and what is to be said of it as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.smoke.case import Case
from pipeline.smoke.cpio import Tree
from pipeline.smoke.hardware import Drive

MAX_DRIVES = 20
"""Drives of a suite; the machine's bus has 32 places, some of which are its own."""


@dataclass(frozen=True)
class Remark:
    """A sentence on a run as a whole; ``red`` says that with it, no run passes."""

    text: str
    red: bool = False


@dataclass(frozen=True)
class Suite:
    """Cases to make: ``boot`` in order after a cold boot, ``guests`` from the host saved then.

    ``goods`` are files that the host has in goods.OF_SUITE for them, ``drives`` what it has besides, as its
    block devices `device`, and ``memory`` the MiB that it must have at least. ``together`` is how many cases
    of guests one machine makes, one after the other. ``remarks`` says after that what they tell as a whole.
    """

    boot: tuple[Case, ...]
    guests: tuple[Case, ...]
    goods: Tree = field(default_factory=dict)
    drives: tuple[Drive, ...] = ()
    memory: int = 0
    together: int = 1
    remarks: Callable[[], tuple[Remark, ...]] = tuple


def device(number: int) -> str:
    """Return what dom0 calls a drive of a suite: the host's own three and the one for goods come before."""
    return f"/dev/vd{chr(ord('e') + number)}"
