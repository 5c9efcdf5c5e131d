"""Guests that need the processor's help: HVM through hvmloader, SeaBIOS and qemu, and PVH."""

from __future__ import annotations

from pipeline.smoke.case import Case, Host, ability, since
from pipeline.smoke.cases.devices import HOST_ADDRESS
from pipeline.smoke.errors import NotApplicableError
from pipeline.smoke.goods import QEMU
from pipeline.smoke.guest import FOLDER, Guest, linux_marker, until
from pipeline.smoke.sector import MARKER

TYPE_SINCE = (4, 10)
"""The first series whose xl knows ``type``."""


async def hvm(host: Host) -> str:
    """A 32-bit HVM guest comes through hvmloader and SeaBIOS to its boot sector, and switches itself off."""
    await _needs(host, "hvm")
    kind = ("type", '"hvm"') if host.facts.series >= TYPE_SINCE else ("builder", '"hvm"')
    lines = (
        kind,
        ("memory", "32"),
        ("disk", "['file:/tmp/hvm.img,hda,w']"),
        ("serial", "'file:/tmp/hvm.serial'"),
        ("vga", '"none"'),
        ("on_reboot", '"destroy"'),
    )
    guest = Guest("smoke-hvm", lines)
    # The qemu of old finds no address to listen on for VNC where a host has none but that of itself.
    await host.succeed(f"ip addr add {HOST_ADDRESS}/24 dev xenbr0; cp {FOLDER}/hvm.img /tmp/hvm.img")
    await guest.create(host)
    try:
        await until(
            host, f"grep -qF '{MARKER}' /tmp/hvm.serial", "the boot sector speaks", host.limits.xl * 2
        )
    finally:
        output = (await host.run("cat /tmp/hvm.serial")).output
        host.keep("console.log", output)
        log = await host.run("cat /var/log/xen/qemu-dm-smoke-hvm.log; xl dmesg | grep '(d[1-9]'")
        host.keep("hvm.log", log.output)
    await guest.gone(host)
    return f"{MARKER}, through hvmloader, SeaBIOS and qemu, and is gone"


async def pvh(host: Host) -> str:
    """A PVH guest comes to its init."""
    await _needs(host, "hvm")
    # Emulated SVM tells no length of RDTSCP, on which Xen would have to decode it.
    guest = Guest.linux("smoke-pvh", "smoke=off", ("type", '"pvh"'), ("tsc_mode", '"native"'))
    said = linux_marker(await guest.create_attached(host))
    await guest.gone(host)
    return f"{said}, and is gone"


async def _needs(host: Host, capability: str) -> None:
    told = await host.succeed("xl info", host.limits.xl)
    caps = next((line for line in told.splitlines() if line.startswith("virt_caps")), "")
    if capability not in caps.split():
        raise NotApplicableError(f"The machine's processor gives Xen no {capability} ({caps.strip()}).")


CASES = (
    Case("hvm-guest", "an HVM guest boots through hvmloader and SeaBIOS", hvm, needs=(ability(QEMU),)),
    Case("pvh-guest", "a PVH guest boots", pvh, needs=(since(*TYPE_SINCE, "PVH"),)),
)
