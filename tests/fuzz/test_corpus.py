"""Every reader of outside data, with the corpus and neighbours of it; `python -m tests.fuzz` does more."""

from __future__ import annotations

import random
import resource
import time
from pathlib import Path

import pytest

from tests.fuzz.mutate import mutate
from tests.fuzz.targets import TARGETS, feed

CORPUS = Path(__file__).parent / "corpus"
NEIGHBOURS = 150


def inputs(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def test_every_target_has_inputs_and_every_input_a_target() -> None:
    """A reader that nothing is fed to is not tested."""
    assert sorted(path.name for path in CORPUS.iterdir()) == sorted(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 300_000


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_what_mutations_begin_with_is_understood(target: str) -> None:
    """Neighbours of what is refused at its first line say nothing about all that comes after it."""
    found = TARGETS[target]((CORPUS / target / "first").read_bytes())
    # The seconds of a Retry-After that lies behind us.
    assert found or (target, found) == ("retry-after", 0)


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_no_bytes_are_too_strange(target: str) -> None:
    """A file from another machine that ends in a traceback, a hang, or a full memory."""
    chance, known = random.Random(target), inputs(target)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for data in known:
        feed(target, data)
    for number in range(NEIGHBOURS):
        data = mutate(chance.choice(known), known, chance)
        start = time.process_time()
        try:
            feed(target, data)
        except Exception as e:
            raise AssertionError(f"{target}, neighbour {number}: {data!r:.2000}") from e
        assert time.process_time() - start < 10, data
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000
