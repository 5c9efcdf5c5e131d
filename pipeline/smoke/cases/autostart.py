"""The guest of /etc/xen/auto: started with the host, saved and restored, shut down in order."""

from __future__ import annotations

import re

from pipeline.smoke.case import Host, end
from pipeline.smoke.cases.install import GUEST
from pipeline.smoke.errors import CheckFailedError

_LOG = f"/var/log/xen/console/guest-{GUEST}.log"


async def runs(host: Host) -> str:
    """xendomains has started the guest of /etc/xen/auto, and it has come to its init."""
    output = await host.succeed(
        f"xl list {GUEST}; tries=0\n"
        f"until grep -q 'SMOKE-GUEST-TICK 1' {_LOG}; do\n"
        "    tries=$((tries + 1)); [ $tries -lt 60 ] || break; sleep 1\n"
        f"done; cat {_LOG}",
        host.limits.xl,
        waits=True,
    )
    host.keep("guest.log", output)
    if "SMOKE-GUEST-TICK 1" not in output:
        raise CheckFailedError(f"{GUEST} was started, but has not come to its init.", hint=end(output))
    return f"{GUEST} runs"


async def came_back(host: Host) -> str:
    """The guest of before the restart runs on: it was saved when the host stopped, and restored."""
    output = await host.succeed(
        f"before=$(grep -c GUEST-TICK {_LOG}); tries=0; xl list {GUEST}\n"
        f'until [ "$(grep -c GUEST-TICK {_LOG})" -gt "$before" ]; do\n'
        "    tries=$((tries + 1)); [ $tries -lt 60 ] || break; sleep 1\n"
        f"done; ls /var/lib/xen/save; cat {_LOG}",
        host.limits.xl,
        waits=True,
    )
    host.keep("guest.log", output)
    ticks = [int(tick) for tick in re.findall(r"SMOKE-GUEST-TICK (\d+)", output)]
    if output.count("SMOKE-GUEST-UP") != 1 or ticks != sorted(ticks):
        raise CheckFailedError("The guest was started afresh, and not restored.", hint=end(output))
    return f"saved and restored, at tick {ticks[-1]}"


async def power_off(host: Host) -> str:
    """With saving switched off in /etc/conf.d/xendomains, the host shuts its guest down and powers off."""
    await host.succeed("sed -i 's/^XENDOMAINS_SAVE=.*/XENDOMAINS_SAVE=/' /etc/conf.d/xendomains")
    return await off(host)


async def in_order(host: Host) -> str:
    """When the host powered off, the guest was told to shut down, and did so in order."""
    output = await host.succeed(
        f"cat {_LOG}; journalctl --boot -1 --no-pager --quiet --output cat --unit xendomains.service"
    )
    host.keep("stop.log", output)
    if "SMOKE-GUEST-DOWN in order" not in output:
        raise CheckFailedError(
            "The guest was not shut down in order when the host powered off.", hint=end(output)
        )
    return "the guest's own poweroff ran"


async def off(host: Host) -> str:
    """The host powers off, and QEMU ends as after a real power-off."""
    await host.succeed("(sleep 0.5; systemctl poweroff) >/dev/null 2>&1 &")
    left = await host.machine.wait_exit(host.limits.power_off)
    if left.status != 0 or left.reason != "guest-shutdown":
        raise CheckFailedError(f"QEMU ended with return code {left.status}, reason {left.reason}.")
    return "guest-shutdown, QEMU ended with 0"
