"""A guest as cases start it: its configuration, and the ways to it from dom0."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from pipeline.smoke.case import Host, end
from pipeline.smoke.errors import CheckFailedError, HangError

MARKER = "SMOKE-GUEST-UP pid=1 hypervisor=xen uuid="
MAC = "00:16:3e:5a:00:01"
"""Of a guest's network card; 00:16:3e is Xen's own part of the address space."""
FOLDER = "/drive/guest"


@dataclass(frozen=True)
class Guest:
    """A guest's name, and the lines of its configuration besides (xl.cfg(5)), by key, as they are written."""

    name: str
    lines: tuple[tuple[str, str], ...]

    @classmethod
    def linux(
        cls, name: str, extra: str, *more: tuple[str, str], memory: int = 112, on_reboot: str = "destroy"
    ) -> Guest:
        """Return a PV guest from the kernel and the ramdisk that the host has."""
        return cls(
            name,
            (
                ("kernel", f'"{FOLDER}/vmlinux"'),
                ("ramdisk", f'"{FOLDER}/initramfs"'),
                ("extra", f'"console=hvc0 quiet panic=1 {extra}"'),
                ("memory", str(memory)),
                ("on_reboot", f'"{on_reboot}"'),
                *more,
            ),
        )

    @property
    def config(self) -> str:
        """Its configuration file. ``builder`` is not said: PV is what a Xen of any age takes it for."""
        own = (("name", f'"{self.name}"'), ("on_crash", '"destroy"'))
        return "".join(f"{key} = {value}\n" for key, value in (*own, *self.lines))

    @property
    def file(self) -> str:
        """Where its configuration is in dom0."""
        return f"/tmp/{self.name}.cfg"  # noqa: S108

    async def write(self, host: Host) -> None:
        """Write its configuration."""
        host.keep(f"{self.name}.cfg", self.config)
        await host.succeed(f"cat >{self.file} <<'END'\n{self.config}END")

    async def create(self, host: Host) -> None:
        """Start it by ``xl create``, and return when xl does."""
        await self.write(host)
        await host.succeed(f"xl create {self.file}", host.limits.xl, waits=True)

    async def create_attached(self, host: Host) -> str:
        """Start it by ``xl create -c``, and return what came over its console until it went."""
        await self.write(host)
        # The console ends at the end of its input; a fifo that stays open has none.
        command = f"rm -f /tmp/typed; mkfifo /tmp/typed; exec 4<>/tmp/typed\nxl create -c {self.file} <&4"
        output = await host.succeed(command, host.limits.xl)
        host.keep("console.log", output)
        return output

    async def gone(self, host: Host) -> None:
        """Wait until xl no longer lists it. Raises HangError where it stays."""
        await until(host, f"! xl domid {shlex.quote(self.name)} 2>/dev/null", f"{self.name} is gone")

    @property
    def log(self) -> str:
        """Where xenconsoled writes what it prints."""
        return f"/var/log/xen/console/guest-{self.name}.log"

    async def says(self, host: Host, text: str, limit: float | None = None, after: int = 0) -> str:
        """Wait until its console has shown a text beyond the first ``after`` bytes; return what is beyond.

        Raises HangError with the end of what it has shown instead.
        """
        return await self._shows(host, f"after={after}", text, limit)

    async def run(self, host: Host, command: str, limit: float | None = None) -> str:
        """Have the shell on its console run a command; returns the output.

        Raises CheckFailedError where it does not succeed.
        """
        # The mark is typed in parts, so that its echo is not taken for the answer, and comes after the
        # status, so that who sees the one sees the other.
        typed = f'{{ {command}; }} 2>&1; echo "=$?" SMOKE-"ANSWER"\n'
        tty = f"$(xenstore-read /local/domain/$(xl domid {self.name})/console/tty)"
        begin = f"after=$(stat -c %s {self.log}) && printf %s {shlex.quote(typed)} >{tty} || exit"
        output = await self._shows(host, begin, " SMOKE-ANSWER", limit)
        match = re.search(r"^(.*?)=(\d+) SMOKE-ANSWER", output, re.DOTALL)
        assert match is not None
        if match[2] != "0":
            raise CheckFailedError(f"`{command}` in the guest ended with {match[2]}.", hint=end(output))
        return match[1]

    async def _shows(self, host: Host, begin: str, text: str, limit: float | None) -> str:
        """Run shell that sets ``after``, then wait for a text on the console beyond so many bytes."""
        # One command for all: each more would cost an emulated machine more than what it does. Seldom, as
        # in until().
        shown = f"tail -c +$((after + 1)) {self.log} 2>/dev/null | grep -qF {shlex.quote(text)}"
        both = f"head -c $after {self.log}; printf '\\036'; tail -c +$((after + 1)) {self.log}"
        try:
            reply = f"{begin}\nuntil {shown}; do sleep 0.5; done\n{both}"
            output = await host.succeed(reply, limit or host.limits.xl)
        except HangError as e:
            output = (await host.run(f"cat {self.log}")).output
            host.keep(f"{self.name}.console.log", output)
            raise HangError(f"{self.name} did not say {text!r}. {e.message}", end(output), e.file) from e
        before, _, beyond = output.partition("\x1e")
        host.keep(f"{self.name}.console.log", before + beyond)
        return beyond


async def until(host: Host, condition: str, what: str, limit: float | None = None) -> None:
    """Wait until a command of dom0 succeeds, in seconds of the machine. Raises HangError."""
    # Seldom: each look takes a processor from what is waited for.
    reply = f"until {condition}; do sleep 0.5; done"
    try:
        await host.run(reply, limit or host.limits.xl)
    except HangError as e:
        raise HangError(f"It did not come to it that {what}. {e.message}", e.hint, e.file) from e


def linux_marker(output: str) -> str:
    """Return the line by which a Linux guest says that it is up. Raises CheckFailedError."""
    match = re.search(re.escape(MARKER) + r".*", output)
    if match is None:
        raise CheckFailedError("The guest did not come to its init.", hint=end(output))
    return match[0].strip()
