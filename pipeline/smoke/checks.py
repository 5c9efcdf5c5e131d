"""What must hold on a booted test host, one check a verdict.

A check returns a sentence of evidence, or raises: CheckFailedError and HangError end the check,
anything else ends the run.
"""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pipeline.smoke.agent import Reply
from pipeline.smoke.dom0 import GUEST_MARKER, GUEST_NAME
from pipeline.smoke.errors import CheckFailedError, HangError, WrongBannerError
from pipeline.smoke.machine import Machine


@dataclass(frozen=True)
class Limits:
    """How long each wait may take, in seconds; generous, for slow hosts without KVM."""

    banner: float = 60
    boot: float = 180
    command: float = 30
    xl: float = 120
    power_off: float = 60
    total: float = 1200


@dataclass(frozen=True)
class Subject:
    """What the checks look at: a running machine, and the version that its Xen must be."""

    machine: Machine
    xen_version: str
    limits: Limits

    async def run(self, command: str, limit: float | None = None) -> Reply:
        """Run a command in dom0; one that does not end in time is a HangError."""
        limit = limit or self.limits.command
        reply = await self.machine.guard(self.machine.agent.run(command, limit), limit + 60, command)
        if reply.timed_out:
            raise HangError(
                f"`{_short(command)}` in dom0 did not end within {limit:g} s.", hint=_end(reply.output)
            )
        return reply

    async def succeed(self, command: str, limit: float | None = None) -> str:
        """Run a command in dom0 that must succeed; return its output."""
        reply = await self.run(command, limit)
        if reply.status != 0:
            raise CheckFailedError(
                f"`{_short(command)}` in dom0 ended with exit status {reply.status}.", hint=_end(reply.output)
            )
        return reply.output


@dataclass(frozen=True)
class Check:
    """A check: its name in the results, what it says holds, and how it is made.

    ``vital`` marks those without which no other can be made.
    """

    name: str
    title: str
    run: Callable[[Subject], Awaitable[str]]
    vital: bool = False


def _short(command: str) -> str:
    line = command.strip().splitlines()[0]
    return line if len(line) <= 80 else line[:77] + "..."


def _end(output: str) -> str:
    return output[-2000:].strip()


async def banner(subject: Subject) -> str:
    """Xen says over the serial line that it is the version that was built."""
    version = await subject.machine.wait_banner(subject.limits.banner)
    if version != subject.xen_version:
        raise WrongBannerError(f"Xen says it is version {version}, and not {subject.xen_version}.")
    return f"Xen version {version}"


async def dom0_up(subject: Subject) -> str:
    """Dom0 has booted, and its services have been started, none of them in vain."""
    machine, limits = subject.machine, subject.limits
    await machine.guard(machine.agent.wait_ready(), limits.boot, "dom0's boot")
    output = await subject.succeed(
        "until [ -e /run/smoke/services ]; do sleep 0.1; done\n"
        "cd /run/smoke && grep . xenfs xenstored init-dom0 xenconsoled xenbr0",
        limits.xl,
    )
    failed = [line for line in output.split() if not line.endswith(":0")]
    if failed:
        raise CheckFailedError(f"Started, but with a bad exit status: {', '.join(failed)}.")
    return "agent ready, services started"


async def xenfs(subject: Subject) -> str:
    """The file system of Xen is mounted, and says that this is the controlling domain."""
    output = await subject.succeed("grep ' /proc/xen ' /proc/mounts && cat /proc/xen/capabilities")
    if not re.search(r"^\S+ /proc/xen xenfs ", output, re.MULTILINE) or "control_d" not in output:
        raise CheckFailedError("/proc/xen is not the xenfs of a controlling domain.", hint=output)
    return "xenfs on /proc/xen, control_d"


async def oxenstored(subject: Subject) -> str:
    """The store answers through its socket, and the daemon that answers is the OCaml one."""
    # -s: through the socket only; otherwise the kernel's device would do as well.
    name = await subject.succeed("xenstore-read -s /local/domain/0/name && xenstore-ls -s /local/domain/0")
    if name.split("\n", 1)[0] != "Domain-0" or 'domid = "0"' not in name:
        raise CheckFailedError("The store does not know Domain-0.", hint=name)
    # The name of a daemon proves nothing: launchers fall back, and a file can be the other's copy.
    # Every program of OCaml has the name of that variable in its runtime.
    output = await subject.succeed(
        "for pid in $(pidof oxenstored xenstored); do\n"
        # tr: to the grep of older busyboxes, a line ends at its first null byte.
        "    if tr '\\0' '\\n' </proc/$pid/exe | grep -qF OCAMLRUNPARAM; then echo OCaml; else echo C; fi\n"
        "done"
    )
    if output.split() != ["OCaml"]:
        found = "not there" if not output.split() else f"written in {' and '.join(output.split())}"
        raise CheckFailedError(f"The store's daemon is {found}.")
    return "oxenstored answers through its socket"


async def xl_info(subject: Subject) -> str:
    """``xl info`` knows the hypervisor that was built."""
    output = await subject.succeed("xl info", subject.limits.xl)
    told = dict(re.findall(r"^(xen_\w+)\s*:\s*(\S+)\s*$", output, re.MULTILINE))
    # Xen 4.2 tells its parts only.
    parts = "{xen_major}.{xen_minor}{xen_extra}".format_map(defaultdict(str, told))
    version = told.get("xen_version", parts).strip(".") or "nothing"
    if version != subject.xen_version:
        raise CheckFailedError(f"xl info says {version} and not {subject.xen_version}.", hint=_end(output))
    return f"xen_version {version}"


async def xl_list(subject: Subject) -> str:
    """``xl list`` shows Domain-0."""
    output = await subject.succeed("xl list", subject.limits.xl)
    if not re.search(r"^Domain-0\s+0\s+\d+\s+\d+\s+r", output, re.MULTILINE):
        raise CheckFailedError("xl list does not show a running Domain-0.", hint=output)
    return "Domain-0 is listed"


async def bridge(subject: Subject) -> str:
    """The bridge that guests join by default can be made and is up."""
    await subject.succeed("test -d /sys/class/net/xenbr0/bridge && ip link show xenbr0 | grep '[<,]UP[,>]'")
    return "xenbr0 is a bridge and up"


async def pv_guest(subject: Subject) -> str:
    """A PV guest starts with its console attached, comes to its init, and is gone when it has ended."""
    # The console ends at the end of its input; a fifo that stays open has none.
    output = await subject.succeed(
        "rm -f /tmp/typed; mkfifo /tmp/typed; exec 4<>/tmp/typed\n"
        "xl create -c /usr/lib/smoke/guest/pv.cfg <&4",
        subject.limits.xl,
    )
    if GUEST_MARKER not in output:
        raise CheckFailedError("The guest did not come to its init.", hint=_end(output))
    name = shlex.quote(GUEST_NAME)
    gone = await subject.run(f"for i in $(seq 100); do xl domid {name} || exit 0; sleep 0.2; done; exit 1")
    listed = await subject.succeed("xl list", subject.limits.xl)
    if gone.status != 0 or len(listed.strip().splitlines()) != 2:
        raise CheckFailedError("The guest has ended, but xl list still shows it.", hint=listed)
    return "the guest printed its marker, and is gone"


async def power_off(subject: Subject) -> str:
    """Dom0 powers the machine off, and QEMU ends as after a real power-off."""
    # In the background, so that the answer to this command still comes.
    await subject.succeed("(sleep 0.2; poweroff -f) >/dev/null 2>&1 &")
    end = await subject.machine.wait_exit(subject.limits.power_off)
    if end.status != 0 or end.reason != "guest-shutdown":
        raise CheckFailedError(f"QEMU ended with return code {end.status}, reason {end.reason}.")
    return "guest-shutdown, QEMU ended with 0"


FAST = (
    Check("xen-banner", "Xen is the version built", banner, vital=True),
    Check("dom0-up", "dom0 boots and starts its services", dom0_up, vital=True),
    Check("xenfs", "xenfs is mounted on /proc/xen", xenfs),
    Check("oxenstored", "oxenstored answers", oxenstored),
    Check("xl-info", "xl info tells the version built", xl_info),
    Check("xl-list", "xl list shows Domain-0", xl_list),
    Check("xenbr0", "xenbr0 is made", bridge),
    Check("pv-guest", "a PV guest boots by xl create -c and goes away", pv_guest),
    Check("power-off", "the machine powers off cleanly", power_off),
)
"""The fast tier, in order; the last one ends the machine."""
