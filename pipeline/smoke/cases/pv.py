"""PV guests: from a kernel and a ramdisk in dom0, from a disk by pygrub, 32-bit, and ten at once."""

from __future__ import annotations

from pipeline.smoke.case import Case, Host, ability
from pipeline.smoke.errors import CheckFailedError, NotApplicableError
from pipeline.smoke.goods import PYGRUB
from pipeline.smoke.guest import FOLDER, Guest, linux_marker
from pipeline.smoke.guest_files import DISK_MARK
from pipeline.smoke.tiny import MARKER

TEN = 10


def tiny(name: str, bits: int, extra: str) -> Guest:
    """Return a guest of one page."""
    kernel = ("kernel", f'"{FOLDER}/tiny{bits}"')
    return Guest(name, (kernel, ("memory", "8"), ("extra", f'"{extra}"')))


async def pv_guest(host: Host) -> str:
    """A PV guest starts with its console attached, comes to its init, and is gone when it has ended."""
    guest = Guest.linux("smoke-pv", "smoke=off")
    said = linux_marker(await guest.create_attached(host))
    await guest.gone(host)
    return f"{said}, and is gone"


async def pygrub(host: Host) -> str:
    """A PV guest installed on a disk boots what its own grub.cfg names, as the wiki page describes."""
    lines = (
        ("bootloader", '"pygrub"'),
        ("bootloader_args", '["-q"]'),
        ("memory", "144"),
        ("disk", "['phy:/dev/vdb,xvda,w']"),
    )
    guest = Guest("smoke-pygrub", lines)
    said = linux_marker(await guest.create_attached(host))
    if "root=/dev/xvda1" not in said:
        raise CheckFailedError("The guest runs, but not from its disk.", hint=said)
    await guest.gone(host)
    return f"{said}, from {DISK_MARK}"


async def pv32(host: Host) -> str:
    """A 32-bit PV guest starts, writes to its console and ends."""
    told = await host.succeed("xl info xen_caps", host.limits.xl)
    if "xen-3.0-x86_32p" not in told:
        raise NotApplicableError(f"This Xen is built without 32-bit PV guests (xen_caps: {told.strip()}).")
    guest = tiny("smoke-pv32", 32, "off")
    # Not attached: the xl of 4.2 begins with that after a second, and such a guest is gone by then.
    await guest.create(host)
    await guest.says(host, f"{MARKER}32")
    await guest.gone(host)
    return f"{MARKER}32, and is gone"


async def ten(host: Host) -> str:
    """Ten guests run at once, and xl ends them all."""
    guests = [tiny(f"smoke-ten{number}", 64, "stay") for number in range(TEN)]
    for guest in guests:
        await guest.write(host)
    # One command for all: each would cost a look at the machine of its own.
    names = " ".join(guest.name for guest in guests)
    create = f"for name in {names}; do xl create /tmp/$name.cfg || exit; done"
    await host.succeed(create, host.limits.xl * 2, waits=True)
    for guest in guests:
        await guest.says(host, f"{MARKER}64")
    listed = await host.succeed("xl list", host.limits.xl)
    there = sum(line.startswith("smoke-ten") for line in listed.splitlines())
    if there != TEN:
        raise CheckFailedError(f"xl list shows {there} of {TEN} guests.", hint=listed)
    await host.succeed(f"for name in {names}; do xl destroy $name || exit; done", host.limits.xl)
    for guest in guests:
        await guest.gone(host)
    return f"{TEN} guests ran at once, and are gone"


CASES = (
    Case("pv-guest", "a PV guest boots by xl create -c and goes away", pv_guest),
    Case("pv-pygrub", "a PV guest boots from its disk by pygrub", pygrub, needs=(ability(PYGRUB),)),
    Case("pv32-guest", "a 32-bit PV guest runs", pv32),
    Case("ten-guests", "ten guests run at once", ten),
)
