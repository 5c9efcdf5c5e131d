"""What xl does with a guest that runs: its console, its state, its memory and processors, its end."""

from __future__ import annotations

import re

from pipeline.smoke.case import Case, Host, Start
from pipeline.smoke.cases.devices import GUEST_ADDRESS, RUNNING, reaches
from pipeline.smoke.errors import CheckFailedError

NAME = RUNNING.name


async def listed(host: Host) -> tuple[int, int, str]:
    """Return the guest's memory in MiB, its number of vcpus, and its state, as ``xl list`` has them."""
    output = await host.succeed(f"xl list {NAME}", host.limits.xl)
    match = re.search(rf"^{NAME}\s+\d+\s+(\d+)\s+(\d+)\s+(\S+)", output, re.MULTILINE)
    if match is None:
        raise CheckFailedError(f"xl list does not show {NAME}.", hint=output)
    return int(match[1]), int(match[2]), match[3]


async def pause(host: Host) -> str:
    """A paused guest stands still, and goes on when it is unpaused."""
    await host.succeed(f"xl pause {NAME}", host.limits.xl)
    state = (await listed(host))[2]
    still = await host.run(f"ping -c 1 -W 3 {GUEST_ADDRESS}")
    if "p" not in state or still.status == 0:
        raise CheckFailedError(f"The guest runs on although it was paused: {state}.", hint=still.output)
    await host.succeed(f"xl unpause {NAME}", host.limits.xl)
    await reaches(host)
    state = (await listed(host))[2]
    if "p" in state:
        raise CheckFailedError(f"The guest is still paused: {state}.")
    return "stood still, and went on"


async def shutdown(host: Host) -> str:
    """``xl shutdown`` asks the guest to switch itself off, and it does."""
    await host.succeed(f"xl shutdown -w {NAME}", host.limits.xl, waits=True)
    await RUNNING.gone(host)
    return "the guest switched itself off"


async def destroy(host: Host) -> str:
    """``xl destroy`` ends a guest at once, and nothing of it stays."""
    await host.succeed(f"xl destroy {NAME}", host.limits.xl)
    await RUNNING.gone(host)
    left = await host.succeed(
        "ls /sys/class/net/xenbr0/brif; xenstore-ls -s /local/domain/0/backend 2>/dev/null; :"
    )
    if re.search(r"vif\d|smoke-guest", left):
        raise CheckFailedError("The guest is gone, but not its devices.", hint=left)
    return "the guest and its devices are gone"


async def top(host: Host) -> str:
    """xentop, which ``xl top`` is, shows dom0 and the guest in batch mode."""
    output = await host.succeed("xentop -b -i 1", host.limits.xl)
    for name in ("Domain-0", NAME):
        # It shows no more than ten letters of a name.
        if not re.search(rf"^\s*{name[:10]}\s+\S+\s+\d+", output, re.MULTILINE):
            raise CheckFailedError(f"xentop does not show {name}.", hint=output)
    return f"Domain-0 and {NAME} are shown"


CASES = tuple(
    Case(name, title, run, start=Start.GUEST)
    for name, title, run in (
        ("xl-pause", "a guest is paused and unpaused", pause),
        ("xl-shutdown", "a guest is shut down", shutdown),
        ("xl-destroy", "a guest is destroyed", destroy),
        ("xl-top", "xl top shows dom0 and the guest", top),
    )
)
