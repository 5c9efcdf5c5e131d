"""A case: one promise of the package, with a name and a verdict of its own.

To add one, write in a module of cases/:

    async def marker(host: Host) -> str:
        \"\"\"A PV guest comes to its init.\"\"\"
        output = await host.succeed("xl create -c ...", host.limits.xl)
        host.keep("console.log", output)
        if MARKER not in output:
            raise CheckFailedError("The guest did not come to its init.")
        return "the guest printed its marker"

    CASES = (Case("pv-guest", "a PV guest boots", marker),)

and name its tuple in cases/__init__.py, in the tier that is to make it. A case returns one sentence of
evidence. CheckFailedError and HangError are its own failure; any other error ends the machine that it ran
on. ``needs`` say of what is known beforehand why it cannot be made: such a case is "not applicable", with
that reason. What it gives to `Host.keep` lies beside its serial log, in the results' ``cases/NAME/``.

Cases that run one after the other on one machine are given to runner.in_order (with the hardware that
boots it), those that start each from a snapshot, several at once, to runner.apart.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pipeline.smoke.accelerator import Accelerator
from pipeline.smoke.agent import Reply
from pipeline.smoke.blame import file_named, program_of
from pipeline.smoke.errors import CheckFailedError, HangError, PackageContentError
from pipeline.smoke.machine import Machine, short
from pipeline.smoke.series import series_of


class Tier(StrEnum):
    """When a case is made."""

    FAST = "fast"
    """On every build: direct boot, dom0 in memory."""
    FULL = "full"
    """On releases and at night: booted as a host would be."""
    XTF = "xtf"
    """When a built Xen Test Framework is named."""
    OWN = "guests"
    """When the configuration of a guest is named."""


class Start(StrEnum):
    """Where a case that has a machine of its own begins."""

    HOST = "host"
    """Dom0 is up."""
    GUEST = "guest"
    """Dom0 is up, and the guest of cases/devices.py runs."""


@dataclass(frozen=True)
class Limits:
    """How long each wait may take, in seconds of the machine; generous, for slow hosts without KVM."""

    banner: float = 60
    boot: float = 180
    command: float = 30
    xl: float = 120
    power_off: float = 60
    idle: float = 15
    """How long a machine may do nothing at all while something is waited for that needs work."""
    total: float = 2400
    """All that is done on one machine, in seconds of the host."""


@dataclass(frozen=True)
class Facts:
    """What is known before anything is booted.

    ``absent`` says why an ability of the host is not there; ``package`` are the paths of the package's files.
    """

    xen_version: str
    accelerator: Accelerator
    qemu_version: str = ""
    absent: Mapping[str, str] = field(default_factory=dict)
    package: frozenset[str] = frozenset()

    @property
    def series(self) -> tuple[int, int]:
        """The first two numbers of Xen's version."""
        if (found := series_of(self.xen_version)) is None:
            raise PackageContentError(f"{self.xen_version!r} is no version of Xen.")
        return found


@dataclass
class Host:
    """The machine under test as a case sees it; ``logs`` are the texts that it keeps, by file name."""

    machine: Machine
    facts: Facts
    limits: Limits
    logs: dict[str, str] = field(default_factory=dict)

    def keep(self, name: str, text: str) -> None:
        """Keep a text as a file of the case's results."""
        self.logs[name] = text

    async def run(self, command: str, limit: float | None = None, *, waits: bool = False) -> Reply:
        """Run a command in dom0; one that does not end in time is a HangError.

        ``waits`` says that it may lie still for long, because it waits for something outside itself.
        """
        patience = 1e9 if waits else self.limits.idle
        try:
            return await self.machine.run(command, limit or self.limits.command, patience)
        except HangError as e:
            raise HangError(e.message, e.hint, file_named(e.hint or "", self.facts.package)) from e

    async def succeed(self, command: str, limit: float | None = None, *, waits: bool = False) -> str:
        """Run a command in dom0 that must succeed; return its output."""
        reply = await self.run(command, limit, waits=waits)
        if reply.status != 0:
            raise CheckFailedError(
                f"`{short(command)}` in dom0 ended with exit status {reply.status}.",
                hint=end(reply.output),
                file=program_of(command, reply.status, self.facts.package)
                or file_named(reply.output, self.facts.package),
            )
        return reply.output


Need = Callable[[Facts], str | None]
"""Returns why a case cannot be made, or None where it can."""


def ability(name: str) -> Need:
    """Return the need of an ability that hosts may lack."""
    return lambda facts: facts.absent.get(name)


def since(major: int, minor: int, what: str) -> Need:
    """Return the need of a Xen from some series on, which has ``what``."""

    def lacks(facts: Facts) -> str | None:
        own = ".".join(str(number) for number in facts.series)
        return None if facts.series >= (major, minor) else f"{own} has no {what}."

    return lacks


@dataclass(frozen=True)
class Case:
    """A promise: its name in the results, what it says holds, and how that is seen.

    ``vital`` marks those of a sequence without which the later ones cannot be made. ``start`` is where one
    with a machine of its own begins, and ``makes`` what others can begin from when it has passed.
    """

    name: str
    title: str
    run: Callable[[Host], Awaitable[str]]
    tier: Tier = Tier.FAST
    needs: tuple[Need, ...] = ()
    vital: bool = False
    start: Start = Start.HOST
    makes: Start | None = None

    def lacks(self, facts: Facts) -> str | None:
        """Why it is not applicable, or None where it is."""
        return next((reason for need in self.needs if (reason := need(facts))), None)


def end(output: str) -> str:
    """Return the end of an output, for a message's hint."""
    return output[-2000:].strip()
