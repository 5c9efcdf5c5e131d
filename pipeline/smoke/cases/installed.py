"""The host on which the package was installed, started by GRUB with Xen, restarted, and started by UEFI."""

from __future__ import annotations

import asyncio
import re

from pipeline.smoke.case import Case, Host, Tier, end
from pipeline.smoke.cases import autostart, boot, errors
from pipeline.smoke.cases.errors import needs_doctor
from pipeline.smoke.cases.install import SERVICES, restart
from pipeline.smoke.errors import CheckFailedError, HangError, InfrastructureError, UnitFailedError

POLL = 3.0
"""Seconds between two looks at whether the host is up; each costs an emulated machine half a second."""


async def up(host: Host) -> str:
    """Everything that starts with the host has started, and nothing has failed."""
    machine, limit = host.machine, host.limits.boot
    await machine.wait_ready(limit)
    begin = machine.progress.seconds
    while machine.progress.seconds - begin < limit:
        # Systemd tells of a failure on the console long before the start is over.
        told = [
            line.text for line in machine.watcher.tail if "FAILED" in line.text and "Failed to " in line.text
        ]
        state = (await host.run("systemctl is-system-running")).output.strip()
        if told or state not in ("initializing", "starting"):
            break
        await asyncio.sleep(POLL)
    else:
        jobs = await host.run("systemctl list-jobs --no-legend")
        raise HangError(f"The host's start was not over after {limit:g} s.", hint=end(jobs.output))
    if told or state != "running":
        await _raise_failed(host, state)
    return "running; no unit has failed"


async def _raise_failed(host: Host, state: str) -> None:
    """Raise the error that names the unit which failed first, and its file."""
    if "connect to bus" in state:
        died = await host.run("journalctl --boot --no-pager --quiet --priority crit --output cat")
        raise InfrastructureError("The host's systemd itself has died.", hint=end(died.output))
    output = await host.run(
        "systemctl --failed --plain --no-legend | while read -r unit _; do\n"
        '    echo "$unit $(systemctl show --property FragmentPath --value "$unit")"\n'
        "done; echo; systemctl --failed --plain --no-legend\n"
        "for unit in $(systemctl --failed --plain --no-legend | cut -d ' ' -f 1); do\n"
        '    journalctl --boot --no-pager --lines 20 --output cat --unit "$unit"\n'
        "done",
        host.limits.xl,
    )
    host.keep("failed-units.log", output.output)
    units = dict(
        line.split() for line in output.output.partition("\n\n")[0].splitlines() if len(line.split()) == 2
    )
    of_xen = {
        unit: path
        for unit, path in units.items()
        if unit.startswith(("xen", "proc-xen", "var-lib-xenstored"))
    }
    if of_xen:
        unit, path = next(iter(of_xen.items()))
        raise UnitFailedError(f"{unit} failed.", hint=end(output.output), file=_in_package(path))
    names = ", ".join(units) or "nothing that it names"
    raise CheckFailedError(f"The host is {state}; failed: {names}.", hint=end(output.output))


def _in_package(path: str) -> str:
    """Return the package's path of a file: on Debian, /lib is a link to /usr/lib, and systemd names that."""
    path = path.removeprefix("/")
    return f"usr/{path}" if path.startswith("lib/") else path


async def active(host: Host) -> str:
    """The services are enabled and active, and the store answers."""
    units = (*SERVICES, "proc-xen.mount")
    # A call for each would cost an emulated machine seconds.
    output = (
        await host.run(
            f"systemctl is-enabled {' '.join(SERVICES)}; systemctl is-active {' '.join(units)}\n"
            "xenstore-read /local/domain/0/name",
            host.limits.xl,
        )
    ).output
    lines = output.split()
    told = [*zip(SERVICES, lines, strict=False), *zip(units, lines[len(SERVICES) :], strict=False)]
    for unit, state in told:
        if state not in ("enabled", "active"):
            raise UnitFailedError(
                f"{unit} is {state}.", hint=end(output), file=f"usr/lib/systemd/system/{unit}"
            )
    if lines[len(told) :] != ["Domain-0"]:
        raise CheckFailedError("The store does not know Domain-0.", hint=end(output))
    return f"{', '.join(units)} are active"


async def _xenfs(host: Host, source: str) -> str:
    await boot.xenfs(host)
    shown = await host.succeed("systemctl show --property SourcePath,FragmentPath proc-xen.mount")
    if source not in shown:
        raise CheckFailedError(f"/proc/xen was not mounted by {source}.", hint=shown)
    return f"xenfs on /proc/xen, by {source}"


async def xenfs_by_unit(host: Host) -> str:
    """xenfs is mounted by the package's unit, without a word in /etc/fstab."""
    return await _xenfs(host, "lib/systemd/system/proc-xen.mount")


async def xenfs_by_fstab(host: Host) -> str:
    """xenfs is mounted by the page's line in /etc/fstab, which takes the place of the unit."""
    return await _xenfs(host, "/etc/fstab")


async def bridge(host: Host) -> str:
    """xenbr0 is there with the network card in it and the host's address on it, as the files say."""
    output = await host.succeed("ip -br address show xenbr0; bridge link show", host.limits.xl)
    host.keep("bridge.log", output)
    address = re.search(r"^xenbr0 +UP .*?(\d+\.\d+\.\d+\.\d+/\d+)", output, re.MULTILINE)
    if address is None or not re.search(r"^\d+: en\S+ .*master xenbr0", output, re.MULTILINE):
        raise CheckFailedError("xenbr0 is not the host's bridge to its network card.", hint=output)
    return f"xenbr0 has {address[1]} and the network card"


async def journal(host: Host) -> str:
    """The units of the package have no warning and no error to tell of."""
    units = " ".join(f"--unit {unit}" for unit in (*SERVICES, "proc-xen.mount", "var-lib-xenstored.mount"))
    output = await host.succeed(
        f"journalctl --boot --no-pager --quiet --priority warning {units}", host.limits.xl
    )
    if output.strip():
        raise CheckFailedError("The units of the package tell of something wrong.", hint=end(output))
    return "no warning of the package's units in the journal"


async def doctor(host: Host) -> str:
    """xen-doctor finds nothing wrong on a host that was set up as the page says."""
    await needs_doctor(host)
    reply = await host.run("xen-doctor", host.limits.xl)
    if reply.status != 0:
        raise CheckFailedError(
            "xen-doctor finds something.", hint=end(reply.output), file="usr/bin/xen-doctor"
        )
    return reply.output.strip().splitlines()[-1]


async def to_fstab(host: Host) -> str:
    """The page's line for xenfs goes into /etc/fstab, and the host restarts; its guest is saved first."""
    await host.succeed("echo 'none /proc/xen xenfs defaults 0 0' >> /etc/fstab")
    return await restart(host)


async def by_uefi(host: Host) -> str:
    """The firmware is UEFI, and Xen's loader for it has started this host."""
    output = await host.succeed("xl dmesg | grep -i efi; ls -d /sys/firmware/efi", host.limits.xl)
    return output.strip().splitlines()[-1]


_BANNER = Case("xen", "Xen is the version built", boot.banner, Tier.FULL, vital=True)
_UP = Case("up", "the host is up, and no unit has failed", up, Tier.FULL)
_ACTIVE = Case("units", "the services are enabled and active", active, Tier.FULL)
_XL_LIST = Case("xl-list", "xl list shows Domain-0", boot.xl_list, Tier.FULL)
_BRIDGE = Case("xenbr0", "xenbr0 is there, with the network card", bridge, Tier.FULL)
_JOURNAL = Case("journal", "the journal is clean of the package's errors", journal, Tier.FULL)


def _named(prefix: str, *cases: Case) -> tuple[Case, ...]:
    return tuple(
        Case(f"{prefix}-{case.name}", f"{prefix}: {case.title}", case.run, case.tier, case.needs, case.vital)
        for case in cases
    )


FIRST = _named(
    "grub",
    _BANNER,
    _UP,
    _ACTIVE,
    Case("xenfs-unit", "xenfs by the mount unit", xenfs_by_unit, Tier.FULL),
    _BRIDGE,
    _XL_LIST,
    Case("autostart", "xendomains starts the guest of /etc/xen/auto", autostart.runs, Tier.FULL),
    Case("xen-doctor", "xen-doctor finds nothing wrong", doctor, Tier.FULL),
    _JOURNAL,
    Case("faults", "faults of services and udev are diagnosed", errors.on_a_host, Tier.FULL),
    Case("prompt", "a guest that waits for ctrl-d is diagnosed", errors.at_the_prompt, Tier.FULL),
    Case("restart", "the host saves its guest and restarts", to_fstab, Tier.FULL, vital=True),
)
"""Started by GRUB for the first time, in order; the last one ends the machine."""

AGAIN = _named(
    "again",
    _BANNER,
    _UP,
    _ACTIVE,
    Case("xenfs-fstab", "xenfs by the line in fstab", xenfs_by_fstab, Tier.FULL),
    _BRIDGE,
    _XL_LIST,
    Case("guest", "the guest is restored", autostart.came_back, Tier.FULL),
    _JOURNAL,
    Case("power-off", "the host powers off", autostart.power_off, Tier.FULL, vital=True),
)
"""After the restart."""

UEFI = _named(
    "uefi",
    _BANNER,
    _UP,
    Case("firmware", "xen.efi was started by UEFI", by_uefi, Tier.FULL),
    _XL_LIST,
    Case("stopped", "the guest was shut down in order", autostart.in_order, Tier.FULL),
    Case("power-off", "the host powers off", autostart.off, Tier.FULL, vital=True),
)
"""The same disk, started by UEFI firmware."""
