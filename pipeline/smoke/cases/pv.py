"""PV guests, from a kernel and a ramdisk in dom0."""

from __future__ import annotations

import shlex

from pipeline.smoke.case import Case, Host, end
from pipeline.smoke.dom0 import GUEST_MARKER, GUEST_NAME
from pipeline.smoke.errors import CheckFailedError


async def pv_guest(host: Host) -> str:
    """A PV guest starts with its console attached, comes to its init, and is gone when it has ended."""
    # The console ends at the end of its input; a fifo that stays open has none.
    output = await host.succeed(
        "rm -f /tmp/typed; mkfifo /tmp/typed; exec 4<>/tmp/typed\n"
        "xl create -c /usr/lib/smoke/guest/pv.cfg <&4",
        host.limits.xl,
    )
    host.keep("console.log", output)
    if GUEST_MARKER not in output:
        raise CheckFailedError("The guest did not come to its init.", hint=end(output))
    name = shlex.quote(GUEST_NAME)
    gone = await host.run(f"for i in $(seq 100); do xl domid {name} || exit 0; sleep 0.2; done; exit 1")
    listed = await host.succeed("xl list", host.limits.xl)
    if gone.status != 0 or len(listed.strip().splitlines()) != 2:
        raise CheckFailedError("The guest has ended, but xl list still shows it.", hint=listed)
    return "the guest printed its marker, and is gone"


CASES = (Case("pv-guest", "a PV guest boots by xl create -c and goes away", pv_guest),)
