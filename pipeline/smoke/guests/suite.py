"""The suite of one's own guests: a case a configuration."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.smoke.cases import BOOT
from pipeline.smoke.guests.case import OwnGuestCase
from pipeline.smoke.guests.disk import FORMATS
from pipeline.smoke.guests.guest import OwnGuest
from pipeline.smoke.hardware import Drive
from pipeline.smoke.plan import MAX_DRIVES, Suite, device

SAYS = "login:"
"""What the console of a guest shows that is up, where nothing else is asked for."""
_BESIDE = 768
"""MiB of a host that guests cannot have: dom0, Xen, and what an HVM guest takes beside its memory."""


def own(paths: Sequence[Path], says: str = SAYS, only: Sequence[str] = ()) -> Suite:
    """Return the guests whose configurations (xl.cfg(5)) are named, or those of them in ``only``.

    A guest passes when its console shows ``says``. Raises UsageError.
    """
    guests = [OwnGuest.read(path) for path in paths]
    names = [guest.name for guest in guests]
    boot = {case.name for case in BOOT}
    for name in names:
        if names.count(name) > 1 or name in boot:
            raise UsageError(f"Two guests have the name {name}, or it is that of a case of the boot test.")
    for name in only:
        if name not in names:
            raise UsageError(f"There is no guest {name!r}.", hint=f"Guests: {', '.join(sorted(names))}.")
    guests = [guest for guest in guests if not only or guest.name in only]
    for guest in guests:
        guest.check()
    drives = [
        Drive(d.target, format=FORMATS[d.format], foreign=True)
        for guest in guests
        for d in guest.images
        if d.target
    ]
    if len(drives) > MAX_DRIVES:
        raise UsageError(f"The guests have {len(drives)} disks, and one host takes {MAX_DRIVES}.")
    devices = iter([device(number) for number in range(len(drives))])
    cases = [OwnGuestCase(guest, [next(devices) for _ in guest.images], says).case() for guest in guests]
    return Suite(
        (),
        tuple(cases),
        {path: file for guest in guests for path, file in guest.goods().items()},
        tuple(drives),
        _memory(guests),
    )


def _memory(guests: Sequence[OwnGuest]) -> int:
    """Return the memory that a test host needs for any of the guests, in MiB. Raises UsageError."""
    largest = max(guests, key=lambda guest: guest.memory)
    # Beside what all need, Xen's own tables grow with memory.
    memory = largest.memory * 33 // 32 + _BESIDE
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    at_once = min(len(guests), len(os.sched_getaffinity(0)))
    if memory * at_once > there:
        raise UsageError(
            f"{at_once} test hosts with {memory} MiB each, for {largest.name}, are more than this host has.",
            hint="Give that guest less memory, in a copy of its configuration, or name it alone.",
        )
    return memory
