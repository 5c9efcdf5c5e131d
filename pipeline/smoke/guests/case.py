"""A guest that somebody has, as a case: it is created, and its console says that it is up."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import PipelineError
from pipeline.smoke.accelerator import Kind
from pipeline.smoke.agent import Reply
from pipeline.smoke.case import Case, Host, Tier, ability, end
from pipeline.smoke.cases.devices import serve_dhcp
from pipeline.smoke.cases.hvm import needs_capability
from pipeline.smoke.errors import CheckFailedError, HangError
from pipeline.smoke.goods import PYGRUB, QEMU
from pipeline.smoke.guests.guest import OwnGuest

LIMIT = 1200
"""Seconds of the machine that a guest may take; a distribution's systemd takes 100 under emulation."""
MAX_CONSOLE = 200_000
_MAX_SAID = 200
_STARTS = 4
_GONE, _PANICKED, _RESTARTING = 3, 4, 5
_ENDS = {_GONE: "was gone", _PANICKED: "panicked", _RESTARTING: f"started anew {_STARTS} times"}


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
        name = self.guest.name
        needs = [ability(QEMU)] if self.guest.hvm else []
        needs += [ability(PYGRUB)] if self.guest.pygrub else []
        return Case(name, f"the guest {name} comes up", self.run, Tier.OWN, tuple(needs))

    async def run(self, host: Host) -> str:
        """Create the guest, and wait until its console says that it is up."""
        if self.guest.needs_processor:
            await needs_capability(host, "hvm")
        await serve_dhcp(host)
        config = str(self.guest.placed(self.devices, emulated=host.facts.accelerator.kind is Kind.TCG))
        host.keep(f"{self.guest.name}.cfg", config)
        await host.succeed(f"cat >/tmp/own.cfg <<'END'\n{config}END")
        wait = waiting(self.guest.name, self.guest.serial, self.says)
        try:
            await host.succeed("xl create /tmp/own.cfg", host.limits.xl, waits=True)
            reply = await host.run(wait, LIMIT, waits=True)
        except HangError as e:
            hint = "\n".join(part for part in (end(await self._keep_logs(host)), e.hint) if part)
            raise HangError(f"{self.guest.name} did not say {self.says!r}. {e.message}", hint, e.file) from e
        except PipelineError:
            await self._keep_logs(host)
            raise
        return self._judged(reply, await self._keep_logs(host))

    def _judged(self, reply: Reply, console: str) -> str:
        if reply.status == 0:
            # What came last on a line that was written over, without colours.
            line = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", reply.output.strip()).rpartition("\r")[2]
            return line[-_MAX_SAID:]
        if reply.status in _ENDS:
            what = f"{self.guest.name} {_ENDS[reply.status]} before it said {self.says!r}."
            raise GuestGoneError(what, hint=end(console))
        raise CheckFailedError(
            f"Waiting for {self.guest.name} in dom0 ended with exit status {reply.status}.",
            hint=end(reply.output),
        )

    async def _keep_logs(self, host: Host) -> str:
        """Keep what the guest and its qemu said; returns what the guest did."""
        logs = {"console.log": self.guest.serial, "qemu.log": f"/var/log/xen/qemu-dm-{self.guest.name}.log"}
        for name, path in logs.items():
            try:
                reply = await host.run(f"tail -c {MAX_CONSOLE} {path}", host.limits.xl)
            except HangError as e:
                # What went wrong before says more than that a busy dom0 could not tell of it.
                host.keep(name, f"(not to be had: {e.message})\n")
            else:
                if reply.status == 0:
                    host.keep(name, reply.output)
        return host.logs.get("console.log", "").replace("\r", "")


def waiting(name: str, log: str, says: str) -> str:
    """Return shell that ends when a log has a text, which it prints with its line, or the guest has ended.

    Its exit status says which.
    """
    # A guest that starts anew has no domain for a moment, and then another one. Seldom: each look takes a
    # processor from the guest.
    return f"""gone=0 starts=0 last=
until tail -c {MAX_CONSOLE} {log} 2>/dev/null | grep -F -- {shlex.quote(says)} | tail -n 1 | grep .; do
    [ $gone -lt 5 ] || exit {_GONE}
    [ $starts -le {_STARTS} ] || exit {_RESTARTING}
    if grep -qsF 'Kernel panic - not syncing' {log}; then exit {_PANICKED}; fi
    if id=$(xl domid {name} 2>/dev/null); then
        gone=0
        [ "$id" = "$last" ] || starts=$((starts + 1))
        last=$id
    else
        gone=$((gone + 1))
    fi
    sleep 2
done"""
