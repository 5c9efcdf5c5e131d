"""What xl does with a guest that runs: its console, its state, its memory and processors, its end."""

from __future__ import annotations

import re

from pipeline.smoke.case import Case, Host, Start
from pipeline.smoke.cases.devices import GUEST_ADDRESS, RUNNING, reaches
from pipeline.smoke.errors import CheckFailedError
from pipeline.smoke.guest import until

NAME = RUNNING.name
IGNORE_HOST_SINCE = (4, 3)
"""The first series whose xl minds that a guest gets more processors than the host has."""
_LESS = 112
_SCRATCH = "mkdir -p /scratch; mount -t ext4 /dev/vdc /scratch"


async def listed(host: Host) -> tuple[int, int, str]:
    """Return the guest's memory in MiB, its number of vcpus, and its state, as ``xl list`` has them."""
    output = await host.succeed(f"xl list {NAME}", host.limits.xl)
    match = re.search(rf"^{NAME}\s+\d+\s+(\d+)\s+(\d+)\s+(\S+)", output, re.MULTILINE)
    if match is None:
        raise CheckFailedError(f"xl list does not show {NAME}.", hint=output)
    return int(match[1]), int(match[2]), match[3]


async def console(host: Host) -> str:
    """``xl console`` carries what is typed to the guest, and back what it answers."""
    # xl wants a terminal before it takes what is typed; script is one. The fifo stays open.
    typed = "rm -f /tmp/typed /tmp/shown; mkfifo /tmp/typed; exec 4<>/tmp/typed"
    start = f"setsid script -q -f -c 'xl console {NAME}' /tmp/shown <&4 >/dev/null 2>&1 &"
    await host.succeed(f"{typed}\n{start}\necho $! >/tmp/console.pid")
    try:
        await until(host, "[ -s /tmp/shown ]", "xl console shows something")
        answers = "{ echo 'echo typed-$((6*7))' >/tmp/typed; grep -q typed-42 /tmp/shown; }"
        await until(host, answers, "the guest answers")
    finally:
        shown = await host.run("kill -- -$(cat /tmp/console.pid); cat /tmp/shown")
        host.keep("console.log", shown.output)
    return "what was typed was answered"


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


async def memory(host: Host) -> str:
    """``xl mem-set`` takes memory from a guest and gives it back; the guest sees both."""
    before, free = (await listed(host))[0], await _total(host)
    await host.succeed(f"xl mem-set {NAME} {_LESS}", host.limits.xl)
    less = await _settles(host, _LESS)
    within = await _total(host)
    await host.succeed(f"xl mem-set {NAME} {before}", host.limits.xl)
    again = await _settles(host, before)
    back = await _total(host)
    if not within < back or within >= free:
        raise CheckFailedError(f"The guest did not see it: {free}, then {within}, then {back} KiB.")
    return f"{before} MiB, {less} MiB, and {again} MiB again"


async def _total(host: Host) -> int:
    return int(re.findall(r"MemTotal:\s+(\d+)", await RUNNING.run(host, "grep MemTotal /proc/meminfo"))[-1])


async def _settles(host: Host, wanted: int) -> int:
    """Wait until the guest has about so much memory."""
    column = f"xl list {NAME} | awk '$1 == \"{NAME}\" {{ exit !($3 >= {wanted - 2} && $3 <= {wanted + 2}) }}'"
    await until(host, column, f"{NAME} has {wanted} MiB")
    return (await listed(host))[0]


async def processors(host: Host) -> str:
    """``xl vcpu-set`` gives a guest another processor, and takes it away again."""
    # The host has one only.
    more = "--ignore-host" if host.facts.series >= IGNORE_HOST_SINCE else ""
    seen = []
    for count in (2, 1):
        await host.succeed(f"xl vcpu-set {more} {NAME} {count}", host.limits.xl)
        # What udev does on a distribution.
        online = "echo 1 >/sys/devices/system/cpu/cpu1/online; " if count == 2 else ""
        wait = f'until [ "$(nproc)" = {count} ]; do {online}sleep 0.3; done 2>/dev/null'
        seen.append((await RUNNING.run(host, f"{wait}; nproc")).split()[-1])
    if seen != ["2", "1"]:
        raise CheckFailedError(f"The guest had {' and then '.join(seen)} processors, and not 2 and then 1.")
    return "two processors, and one again"


async def save_restore(host: Host) -> str:
    """A guest saved to a file is gone; restored, it goes on where it was, and its network does."""
    await RUNNING.run(host, "token=kept-$((40+2))")
    await host.succeed(f"{_SCRATCH} && xl save {NAME} /scratch/saved", host.limits.xl * 2, waits=True)
    await RUNNING.gone(host)
    await host.succeed("xl restore /scratch/saved", host.limits.xl * 2, waits=True)
    told = await RUNNING.run(host, "echo $token")
    if "kept-42" not in told.split():
        raise CheckFailedError("The guest that was restored is not the one that was saved.", hint=told)
    await reaches(host)
    return "gone, and back with its memory and its network"


async def reboot(host: Host) -> str:
    """``xl reboot`` makes the guest start anew, as a new domain."""
    before = int(await host.succeed(f"xl domid {NAME}", host.limits.xl))
    size = int(await host.succeed(f"stat -c %s {RUNNING.log}"))
    await host.succeed(f"xl reboot {NAME}", host.limits.xl)
    await RUNNING.says(host, "SMOKE-GUEST-UP", after=size)
    after = int(await host.succeed(f"xl domid {NAME}", host.limits.xl))
    if after == before:
        raise CheckFailedError(f"The guest is still domain {before}.")
    return f"domain {before} became domain {after}"


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
        ("xl-save", "a guest is saved and restored", save_restore),
        ("xl-reboot", "a guest is rebooted", reboot),
        ("xl-mem-set", "a guest's memory is taken and given", memory),
        ("xl-vcpu-set", "a guest's processors are plugged and unplugged", processors),
        ("xl-console", "a guest's console is used by xl console", console),
        ("xl-pause", "a guest is paused and unpaused", pause),
        ("xl-shutdown", "a guest is shut down", shutdown),
        ("xl-destroy", "a guest is destroyed", destroy),
        ("xl-top", "xl top shows dom0 and the guest", top),
    )
)
