"""All cases, by what runs them; case.py says how one is added."""

from __future__ import annotations

from pipeline.smoke.case import Case
from pipeline.smoke.cases import boot, devices, errors, hvm, pv, xl

BOOT: tuple[Case, ...] = boot.CASES
"""The fast tier's boot test, in order on one machine."""
GUESTS: tuple[Case, ...] = (*hvm.CASES, *devices.CASES, *pv.CASES, *xl.CASES, *errors.CASES)
"""The fast tier's cases that go on from a saved host, each on a machine of its own; the longest begins."""
VITAL: tuple[Case, ...] = tuple(case for case in BOOT if case.vital)
"""What brings up a host that cases can be made on."""
