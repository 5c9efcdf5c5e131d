"""Guests that need the processor's help: HVM through hvmloader, SeaBIOS and qemu, and PVH."""

from __future__ import annotations

from pipeline.smoke.case import Case, Host, ability, since
from pipeline.smoke.errors import NotApplicableError
from pipeline.smoke.goods import HVM_LINUX, QEMU
from pipeline.smoke.guest import FOLDER, Guest, linux_marker, until
from pipeline.smoke.guest import MARKER as LINUX
from pipeline.smoke.sector import MARKER

TYPE_SINCE = (4, 10)
"""The first series whose xl knows ``type``."""
NATIVE_TSC = ("tsc_mode", '"native"')
"""Emulated SVM tells no length of RDTSCP, on which Xen would have to decode it, and does not."""


async def hvm(host: Host) -> str:
    """A 32-bit HVM guest comes through hvmloader and SeaBIOS to its boot sector, and switches itself off."""
    await host.succeed(f"cp {FOLDER}/hvm.img /tmp")
    await _boot(host, "smoke-hvm", "file:/tmp/hvm.img,hda,w", 32, MARKER)
    return f"{MARKER}, through hvmloader, SeaBIOS and qemu, and is gone"


async def hvm_linux(host: Host) -> str:
    """An HVM guest loads Linux from a CD by the BIOS, comes to its init, and switches itself off."""
    disk = f"file:{FOLDER}/hvm-linux.iso,hdc:cdrom,r"
    said = linux_marker(await _boot(host, "smoke-hvm-linux", disk, 160, LINUX))
    return f"{said}, through hvmloader, SeaBIOS and qemu, and is gone"


async def _boot(host: Host, name: str, disk: str, memory: int, marker: str) -> str:
    """Boot an HVM guest until its serial port has shown a marker, and it has gone; returns what it showed."""
    await needs_capability(host, "hvm")
    kind = ("type", '"hvm"') if host.facts.series >= TYPE_SINCE else ("builder", '"hvm"')
    serial = f"/tmp/{name}.serial"  # noqa: S108  # dom0's own
    lines = (
        kind,
        ("memory", str(memory)),
        ("disk", f"['{disk}']"),
        ("boot", '"cd"'),
        ("serial", f"'file:{serial}'"),
        ("vga", '"none"'),
        ("on_reboot", '"destroy"'),
        NATIVE_TSC,
    )
    guest = Guest(name, lines)
    await guest.create(host)
    try:
        await until(host, f"grep -qF '{marker}' {serial}", "the guest's marker comes", host.limits.xl * 5)
    finally:
        output = (await host.run(f"cat {serial}")).output
        host.keep("console.log", output)
        log = await host.run(f"cat /var/log/xen/qemu-dm-{name}.log; xl dmesg | grep '(d[1-9]'")
        host.keep("hvm.log", log.output)
    await guest.gone(host)
    # The marker's line may not have been whole before.
    output = await host.succeed(f"cat {serial}")
    host.keep("console.log", output)
    return output


async def pvh(host: Host) -> str:
    """A PVH guest comes to its init."""
    await needs_capability(host, "hvm")
    guest = Guest.linux("smoke-pvh", "smoke=off", ("type", '"pvh"'), NATIVE_TSC)
    said = linux_marker(await guest.create_attached(host))
    await guest.gone(host)
    return f"{said}, and is gone"


async def needs_capability(host: Host, capability: str) -> None:
    """Raise NotApplicableError where Xen cannot make such guests (``hvm``) on this processor."""
    told = await host.succeed("xl info", host.limits.xl)
    caps = next((line for line in told.splitlines() if line.startswith("virt_caps")), "")
    if capability not in caps.split():
        raise NotApplicableError(f"The machine's processor gives Xen no {capability} ({caps.strip()}).")


CASES = (
    Case(
        "hvm-linux",
        "an HVM guest boots Linux from a CD",
        hvm_linux,
        needs=(ability(QEMU), ability(HVM_LINUX)),
    ),
    Case("hvm-guest", "an HVM guest boots through hvmloader and SeaBIOS", hvm, needs=(ability(QEMU),)),
    Case("pvh-guest", "a PVH guest boots", pvh, needs=(since(*TYPE_SINCE, "PVH"),)),
)
