"""A running PV guest with a network card and a disk, and what goes over them.

`running` brings the guest up, and the machine that it was made on is saved: the other cases that need a
guest start there.
"""

from __future__ import annotations

import re

from pipeline.smoke.case import Case, Host, Start
from pipeline.smoke.errors import CheckFailedError
from pipeline.smoke.guest import MAC, Guest, linux_marker, until

HOST_ADDRESS, GUEST_ADDRESS = "10.77.0.1", "10.77.0.2"
"""Dom0's on xenbr0, which dom0-init.sh gives it, and that of the guest that runs."""
RUNNING = Guest.linux(
    "smoke-guest",
    f"smoke=stay address={GUEST_ADDRESS}/24",
    ("vif", f'["mac={MAC},bridge=xenbr0"]'),
    ("disk", '["phy:/dev/vdb,xvda,w"]'),
    ("maxmem", "144"),
    ("maxvcpus", "2"),
    ("vcpus", "1"),
    memory=128,
    on_reboot="restart",
)
"""The guest that runs where a case starts from Start.GUEST."""

_DHCP = f"""cat >/tmp/udhcpd.conf <<'END'
interface xenbr0
start 10.77.0.100
end 10.77.0.100
max_leases 1
lease_file /tmp/udhcpd.leases
option subnet 255.255.255.0
option router {HOST_ADDRESS}
END
touch /tmp/udhcpd.leases
udhcpd -S /tmp/udhcpd.conf"""
_KIB = 1024


async def running(host: Host) -> str:
    """A PV guest starts with a vif on xenbr0 and a disk, and its console answers."""
    await RUNNING.create(host)
    linux_marker(await RUNNING.says(host, "SMOKE-GUEST-UP"))
    seen = await RUNNING.run(host, "ls /sys/class/net /sys/block; echo $((6*7))")
    for word in ("eth0", "xvda", "42"):
        if word not in seen.split():
            raise CheckFailedError(f"The guest does not have {word}.", hint=seen)
    return "up, with eth0 and xvda"


async def ping(host: Host) -> str:
    """The vif has its MAC address, is on the bridge, and packets go both ways."""
    mac = await RUNNING.run(host, "cat /sys/class/net/eth0/address")
    if MAC not in mac.split():
        raise CheckFailedError(f"The guest's card has another address than {MAC}.", hint=mac)
    bridged = await host.succeed("ls /sys/class/net/xenbr0/brif")
    if not re.search(r"^vif\d+\.0$", bridged, re.MULTILINE):
        raise CheckFailedError("The guest's vif is not on xenbr0.", hint=bridged)
    await reaches(host)
    await RUNNING.run(host, f"until ping -c 1 -W 2 {HOST_ADDRESS}; do :; done")
    return f"{MAC} on xenbr0, pings both ways"


async def reaches(host: Host, address: str = GUEST_ADDRESS) -> None:
    """Ping the guest from dom0 until it answers. Raises HangError."""
    await until(host, f"ping -c 1 -W 2 {address} >/dev/null", f"dom0 reaches {address}")


async def serve_dhcp(host: Host) -> None:
    """Have dom0 give 10.77.0.100 to who asks on xenbr0."""
    await host.succeed(_DHCP)


async def dhcp(host: Host) -> str:
    """A DHCP server in dom0 gives the guest an address, and it is reached there."""
    await serve_dhcp(host)
    ask = "ip addr flush dev eth0; udhcpc -f -n -q -t 40 -i eth0 -s /udhcpc"
    got = await RUNNING.run(host, f"{ask} && ip -4 addr show dev eth0")
    if "10.77.0.100/24" not in got:
        raise CheckFailedError("The guest did not take the address that it was given.", hint=got)
    await reaches(host, "10.77.0.100")
    return "10.77.0.100 by DHCP, reached"


async def disk(host: Host) -> str:
    """What the guest writes to xvda it reads back, and dom0 finds it there too."""
    write = f"dd if=/dev/urandom of=/new/smoke bs=1024 count={_KIB} 2>/dev/null && sync"
    mount, read, forget = "mount -t ext4 /dev/xvda1 /new", "sha256sum /new/smoke", "umount /new"
    drop = "echo 3 >/proc/sys/vm/drop_caches"
    steps = (mount, write, read, forget, drop, mount, read, forget)
    sums = [await RUNNING.run(host, " && ".join(steps))]
    await host.succeed(f"xl block-detach {RUNNING.name} xvda", host.limits.xl, waits=True)
    # The guest's writes went past dom0's cache.
    look = "blockdev --flushbufs /dev/vdb1; mkdir -p /mnt; mount -t ext4 -o ro /dev/vdb1 /mnt"
    sums.append(await host.succeed(f"{look} && sha256sum /mnt/smoke && stat -c %s /mnt/smoke"))
    found = re.findall(r"\b[0-9a-f]{64}\b", "\n".join(sums))
    if len(found) != 3 or len(set(found)) != 1 or str(_KIB * 1024) not in sums[-1].split():
        raise CheckFailedError("Guest and dom0 do not read what the guest wrote.", hint="\n".join(sums))
    return f"{_KIB} KiB written, read back, and found by dom0"


CASES = (
    Case("pv-devices", "a PV guest runs with a vif and a disk", running, makes=Start.GUEST),
    Case("vif-ping", "packets go both ways between guest and dom0", ping, start=Start.GUEST),
    Case("vif-dhcp", "a guest gets its address by DHCP", dhcp, start=Start.GUEST),
    Case("xvda", "a guest's disk holds what is written", disk, start=Start.GUEST),
)
