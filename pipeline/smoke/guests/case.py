"""A guest that somebody has, as a case: it is created, and its console says that it is up."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.smoke.accelerator import Kind
from pipeline.smoke.case import Case, Host, Tier, ability, end
from pipeline.smoke.cases.devices import serve_dhcp
from pipeline.smoke.cases.hvm import needs_capability
from pipeline.smoke.errors import CheckFailedError, HangError
from pipeline.smoke.goods import PYGRUB, QEMU
from pipeline.smoke.guests.guest import OwnGuest

LIMIT = 1200
"""Seconds of the machine that a guest may take; a distribution's systemd takes 100 under emulation."""
MAX_CONSOLE = 200_000
_GONE, _PANICKED = 3, 4
# A guest that starts anew has no domain for a moment. Seldom: each look takes a processor from the guest.
_WAIT = f"""gone=0
until tail -c {MAX_CONSOLE} {{log}} 2>/dev/null | grep -F -- {{says}} | tail -n 1 | grep .; do
    [ $gone -lt 5 ] || exit {_GONE}
    if grep -qsF 'Kernel panic - not syncing' {{log}}; then exit {_PANICKED}; fi
    if xl domid {{name}} >/dev/null 2>&1; then gone=0; else gone=$((gone + 1)); fi
    sleep 2
done"""


class GuestGoneError(CheckFailedError):
    """A guest was gone, or its kernel had panicked, before it said that it was up."""


@dataclass(frozen=True)
class OwnGuestCase:
    """A guest to be started, whose images are the block devices ``devices``, until it says ``says``."""

    guest: OwnGuest
    devices: Sequence[str]
    says: str

    def case(self) -> Case:
        """Return the case; its name is the guest's."""
        needs = [ability(QEMU)] if self.guest.hvm else []
        needs += [ability(PYGRUB)] if "pygrub" in self.guest.config.string("bootloader") else []
        return Case(
            self.guest.name, f"the guest {self.guest.name} comes up", self.run, Tier.OWN, tuple(needs)
        )

    async def run(self, host: Host) -> str:
        """Create the guest, and wait until its console says that it is up."""
        if self.guest.hvm or self.guest.config.string("type") == "pvh":
            await needs_capability(host, "hvm")
        await serve_dhcp(host)
        config = str(self.guest.placed(self.devices, emulated=host.facts.accelerator.kind is Kind.TCG))
        host.keep(f"{self.guest.name}.cfg", config)
        await host.succeed(f"cat >/tmp/own.cfg <<'END'\n{config}END")
        try:
            await host.succeed("xl create /tmp/own.cfg", host.limits.xl, waits=True)
            said = await self._up(host)
        finally:
            await self._keep_logs(host)
        await host.run(f"xl destroy {self.guest.name}", host.limits.xl)
        return said

    async def _up(self, host: Host) -> str:
        name, serial = self.guest.name, self.guest.serial
        try:
            reply = await host.run(
                _WAIT.format(name=name, log=serial, says=shlex.quote(self.says)), LIMIT, waits=True
            )
        except HangError as e:
            raise HangError(f"{name} did not say {self.says!r}: {e.message}", await self._last(host)) from e
        if reply.status == 0:
            return reply.output.strip()
        what = {_GONE: "was gone", _PANICKED: "panicked"}[reply.status]
        raise GuestGoneError(f"{name} {what} before it said {self.says!r}.", hint=await self._last(host))

    async def _keep_logs(self, host: Host) -> None:
        logs = {"console.log": self.guest.serial, "qemu.log": f"/var/log/xen/qemu-dm-{self.guest.name}.log"}
        for name, path in logs.items():
            try:
                text = (await host.run(f"tail -c {MAX_CONSOLE} {path}", host.limits.xl)).output
            except HangError as e:
                # What went wrong before says more than that a busy dom0 could not tell of it.
                text = f"(not to be had: {e.message})\n"
            host.keep(name, text)

    async def _last(self, host: Host) -> str:
        output = (await host.run(f"tail -c 2000 {self.guest.serial}", host.limits.xl)).output
        return end(output.replace("\r", ""))
