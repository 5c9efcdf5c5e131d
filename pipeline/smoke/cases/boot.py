"""The boot test: what must hold on a host that has just been booted, in order, on one machine."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict

from pipeline.smoke.case import Case, Host, end
from pipeline.smoke.errors import CheckFailedError, InfrastructureError, MachineResetError, WrongBannerError

_STARTED = {"xenstored": "OXENSTORED", "init-dom0": "XEN_INIT_DOM0", "xenconsoled": "XENCONSOLED"}
"""Services by the names that dom0-init.sh notes them under, and what the list of programs calls them."""


async def banner(host: Host) -> str:
    """Xen says over the serial line that it is the version that was built."""
    version = await host.machine.wait_banner(host.limits.banner)
    if version != host.facts.xen_version:
        raise WrongBannerError(f"Xen says it is version {version}, and not {host.facts.xen_version}.")
    return f"Xen version {version}"


async def dom0_up(host: Host) -> str:
    """Dom0 has booted, and its services have been started, none of them in vain."""
    await host.machine.wait_ready(host.limits.boot)
    output = await host.succeed(
        "until [ -e /run/smoke/services ]; do sleep 0.1; done\n"
        "cd /run/smoke && grep -s . goods xenfs xenstored init-dom0 xenconsoled xenbr0; :",
        host.limits.xl,
    )
    failed = [line for line in output.split() if not line.endswith(":0")]
    if failed and failed[0].startswith("goods:"):
        # Ours, and not the package's.
        raise InfrastructureError(f"The drive with what the suite brings along is not mounted ({failed[0]}).")
    if failed:
        programs = await host.succeed("cat /usr/lib/smoke/programs")
        started = _STARTED.get(failed[0].split(":")[0], "")
        file = re.search(rf"^{started}=/(\S+)$", programs, re.MULTILINE)
        raise CheckFailedError(
            f"Started, but with a bad exit status: {', '.join(failed)}.", file=file[1] if file else None
        )
    return "agent ready, services started"


async def xenfs(host: Host) -> str:
    """The file system of Xen is mounted, and says that this is the controlling domain."""
    output = await host.succeed("grep ' /proc/xen ' /proc/mounts && cat /proc/xen/capabilities")
    if not re.search(r"^\S+ /proc/xen xenfs ", output, re.MULTILINE) or "control_d" not in output:
        raise CheckFailedError("/proc/xen is not the xenfs of a controlling domain.", hint=output)
    return "xenfs on /proc/xen, control_d"


async def oxenstored(host: Host) -> str:
    """The store answers through its socket, and the daemon that answers is the OCaml one."""
    # -s: through the socket only; otherwise the kernel's device would do as well.
    name = await host.succeed("xenstore-read -s /local/domain/0/name && xenstore-ls -s /local/domain/0")
    if name.split("\n", 1)[0] != "Domain-0" or 'domid = "0"' not in name:
        raise CheckFailedError("The store does not know Domain-0.", hint=name)
    # The name of a daemon proves nothing: launchers fall back, and a file can be the other's copy.
    # Every program of OCaml has the name of that variable in its runtime.
    output = await host.succeed(
        "for pid in $(pidof oxenstored xenstored); do\n"
        # tr: to the grep of older busyboxes, a line ends at its first null byte.
        "    if tr '\\0' '\\n' </proc/$pid/exe | grep -qF OCAMLRUNPARAM; then echo OCaml; else echo C; fi\n"
        "done"
    )
    if output.split() != ["OCaml"]:
        found = "not there" if not output.split() else f"written in {' and '.join(output.split())}"
        raise CheckFailedError(f"The store's daemon is {found}.")
    return "oxenstored answers through its socket"


async def xl_info(host: Host) -> str:
    """``xl info`` knows the hypervisor that was built."""
    output = await host.succeed("xl info", host.limits.xl)
    told = dict(re.findall(r"^(xen_\w+)\s*:\s*(\S+)\s*$", output, re.MULTILINE))
    # Xen 4.2 tells its parts only.
    parts = "{xen_major}.{xen_minor}{xen_extra}".format_map(defaultdict(str, told))
    version = told.get("xen_version", parts).strip(".") or "nothing"
    if version != host.facts.xen_version:
        raise CheckFailedError(f"xl info says {version} and not {host.facts.xen_version}.", hint=end(output))
    return f"xen_version {version}"


async def xl_list(host: Host) -> str:
    """``xl list`` shows Domain-0."""
    output = await host.succeed("xl list", host.limits.xl)
    if not re.search(r"^Domain-0\s+0\s+\d+\s+\d+\s+r", output, re.MULTILINE):
        raise CheckFailedError("xl list does not show a running Domain-0.", hint=output)
    return "Domain-0 is listed"


async def bridge(host: Host) -> str:
    """The bridge that guests join by default can be made and is up."""
    await host.succeed("test -d /sys/class/net/xenbr0/bridge && ip link show xenbr0 | grep '[<,]UP[,>]'")
    return "xenbr0 is a bridge and up"


async def power_off(host: Host) -> str:
    """Dom0 powers the machine off, and QEMU ends as after a real power-off."""
    # In the background, so that the answer to this command still comes; on a busy host, it may not.
    with contextlib.suppress(MachineResetError):
        await host.succeed("(sleep 0.2; poweroff -f) >/dev/null 2>&1 &")
    end = await host.machine.wait_exit(host.limits.power_off)
    if end.status != 0 or end.reason != "guest-shutdown":
        raise CheckFailedError(f"QEMU ended with return code {end.status}, reason {end.reason}.")
    return "guest-shutdown, QEMU ended with 0"


READY = "dom0-up"
"""The case after which the host can be saved."""

CASES = (
    Case("xen-banner", "Xen is the version built", banner, vital=True),
    Case(READY, "dom0 boots and starts its services", dom0_up, vital=True),
    Case("xenfs", "xenfs is mounted on /proc/xen", xenfs),
    Case("oxenstored", "oxenstored answers", oxenstored),
    Case("xl-info", "xl info tells the version built", xl_info),
    Case("xl-list", "xl list shows Domain-0", xl_list),
    Case("xenbr0", "xenbr0 is made", bridge),
    Case("power-off", "the machine powers off cleanly", power_off),
)
"""In order; the last one ends the machine."""
