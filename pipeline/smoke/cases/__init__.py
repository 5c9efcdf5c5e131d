"""All cases, by what runs them; case.py says how one is added."""

from __future__ import annotations

from pipeline.smoke.case import Case
from pipeline.smoke.cases import boot, errors, pv

BOOT: tuple[Case, ...] = boot.CASES
"""The fast tier's boot test, in order on one machine."""
GUESTS: tuple[Case, ...] = (*pv.CASES, *errors.CASES)
"""The fast tier's cases that start from a snapshot, each on a machine of its own."""
