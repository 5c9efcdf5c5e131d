"""XTF's tests as cases: each is created by xl as a guest of dom0, and its console tells the result."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.smoke.case import Case, Facts, Host, Tier, end
from pipeline.smoke.cpio import File, Tree
from pipeline.smoke.errors import BrokenCaseError, CheckFailedError, HangError, NotApplicableError
from pipeline.smoke.goods import OF_SUITE
from pipeline.smoke.series import series_of
from pipeline.smoke.xtf.catalog import Catalog, Instance
from pipeline.smoke.xtf.expectations import Circumstances, Expectation, Expectations
from pipeline.smoke.xtf.outcome import MARK, Outcome, capabilities, interpret, result_line

FOLDER = "xtf"
"""Where the tests are in dom0's goods."""
_PLACE = f"{OF_SUITE}/{FOLDER}"
GUEST_LIMIT = 120
"""Seconds of the machine that a test may take; under emulation, one with a qemu of its own takes ten."""
MAX_CONSOLE = 200_000
_DRAIN = 10
"""Tenths of a second in which xenconsoled writes what a guest last said."""


class UnexpectedPassError(CheckFailedError):
    """A test succeeded of which the list says that it cannot."""


class XtfFailureError(CheckFailedError):
    """A test says that something is wrong with Xen."""


class XtfCrashError(CheckFailedError):
    """A test ended, or did not end, without having said how it went."""


@dataclass(frozen=True)
class Ended:
    """How a test ended. ``said`` is the line that tells it, ``console`` all that the guest printed."""

    outcome: Outcome
    said: str
    console: str = ""
    xl: str = ""


@dataclass
class Framework:
    """Tests to make, and what is expected of them.

    ``unlisted`` gets those that skipped themselves although the list does not say that they may.
    """

    catalog: Catalog
    chosen: Sequence[Instance]
    expected: Expectations
    unlisted: set[Instance] = field(default_factory=set)
    _capabilities: frozenset[str] | None = None

    def cases(self) -> tuple[Case, ...]:
        """Return a case a test, named as xtf-runner names it."""
        return tuple(self._case(instance) for instance in self.chosen)

    def _case(self, instance: Instance) -> Case:
        async def made(host: Host) -> str:
            expected = self.expected.under(circumstances(host.facts)).of(instance)
            limit = (expected.seconds if expected is not None else None) or GUEST_LIMIT
            ended = await self._run(host, instance, limit)
            host.keep("console.log", ended.console)
            if ended.xl:
                host.keep("xl.log", ended.xl)
            if ended.outcome is Outcome.SKIP and (expected is None or expected.outcome is not Outcome.SKIP):
                self.unlisted.add(instance)
            return judge(ended, expected)

        where = " ".join(part for part in (instance.environment, instance.variation) if part)
        return Case(str(instance), f"XTF {instance.name}, {where}", made, Tier.XTF)

    async def _run(self, host: Host, instance: Instance, limit: int) -> Ended:
        if self._capabilities is None:
            self._capabilities = capabilities(await host.succeed("xl info", host.limits.xl))
        if lacking := instance.needs - self._capabilities:
            return Ended(Outcome.SKIP, f"Xen does not offer {', '.join(sorted(lacking))}")
        try:
            files_of(self.catalog, instance)
        except OSError as e:
            raise BrokenCaseError(f"The test is not built: {e.filename}: {e.strerror}.") from e
        except (ValueError, RuntimeError) as e:
            raise BrokenCaseError(f"The test is not one: {e}.") from e
        return await run(host, instance, limit)

    def files(self) -> Tree:
        """Return what dom0 needs to run the tests. One that is not whole is left out."""
        tree: Tree = {}
        for instance in self.chosen:
            try:
                tree |= files_of(self.catalog, instance)
            except (OSError, ValueError, RuntimeError):
                continue
        return tree


def circumstances(facts: Facts) -> Circumstances:
    """What of a host expectations depend on."""
    return Circumstances(facts.series, series_of(facts.qemu_version) or (), facts.accelerator.kind)


def files_of(catalog: Catalog, instance: Instance) -> Tree:
    """Return a test's files by their place in dom0. Raises OSError and ValueError.

    The configuration names files by where XTF was built or is to be installed; that is changed to where
    they are in dom0.
    """
    place = f"{_PLACE}/{instance.name}"
    name = re.escape(instance.name.encode())
    text = re.sub(
        rb"""(["'])/[^"'\n]*/tests/%s/""" % name,
        lambda match: match[1] + f"/{place}/".encode(),
        catalog.file(instance.name, instance.config),
    )
    tree: Tree = {f"{FOLDER}/{instance.name}/{instance.config}": File(text)}
    others = re.findall(rb"""["']/%s/([A-Za-z0-9._+~-]+)["']""" % re.escape(place.encode()), text)
    for file in {instance.kernel, *(other.decode() for other in others)}:
        tree[f"{FOLDER}/{instance.name}/{file}"] = File(catalog.file(instance.name, file))
    return tree


async def run(host: Host, instance: Instance, limit: int) -> Ended:
    """Create a test's guest in dom0, wait up to ``limit`` seconds for its end, and read its console."""
    name = shlex.quote(str(instance))
    console = shlex.quote(f"/var/log/xen/console/guest-{instance}.log")
    config = f"/{_PLACE}/{instance.name}/{shlex.quote(instance.config)}"
    try:
        # It waits for the guest, and most of them say nothing on the way.
        reply = await host.run(
            f"rm -f {console}; exec xl create -F {config} >/tmp/xl.log 2>&1", limit, waits=True
        )
        trouble = f"xl create ended with exit status {reply.status}; " if reply.status else ""
    except HangError:
        trouble = f"it did not end within {limit} s; "
    if trouble:
        await host.run(f"xl destroy {name}", host.limits.xl)
    await host.run(
        f"tries=0; until grep -qs '{MARK}' {console} || [ $tries = {_DRAIN} ]; do\n"
        "    sleep 0.1; tries=$((tries + 1))\ndone"
    )
    text = (await host.run(f"if [ -f {console} ]; then head -c {MAX_CONSOLE} {console}; fi")).output
    xl = (await host.run("tail -c 20000 /tmp/xl.log")).output
    return Ended(interpret(text), result_line(text) or trouble + _last_line(text), text, xl)


def _last_line(console: str) -> str:
    lines = [line.strip() for line in console.splitlines() if line.strip(" *-")]
    return f"the last line is: {lines[-1][:200]}" if lines else "it printed nothing"


def judge(ended: Ended, expected: Expectation | None) -> str:
    """Return the evidence of a test that succeeded.

    Raises NotApplicableError for one that ended as the list says, or skipped itself, and else the error of
    how it ended.
    """
    outcome, said = ended.outcome, ended.said
    if expected is not None and outcome is expected.outcome:
        raise NotApplicableError(f"{outcome}, as expected ({said}): {expected.reason}")
    if outcome is Outcome.SUCCESS:
        if expected is not None:
            raise UnexpectedPassError(
                f"It succeeds, and the list expects {expected.outcome}: {expected.reason}",
                hint="Where that holds from now on, take it from the list of expected outcomes.",
            )
        return said
    instead = f" The list expects {expected.outcome}: {expected.reason}" if expected is not None else ""
    hint = "\n".join(part for part in (end(ended.console), end(ended.xl)) if part)
    if outcome is Outcome.SKIP:
        raise NotApplicableError(f"skip, which is on no list ({said}).{instead}")
    if outcome is Outcome.ERROR:
        raise BrokenCaseError(f"The test has an error of its own: {said}.{instead}", hint=hint)
    if outcome is Outcome.FAILURE:
        raise XtfFailureError(f"The test failed: {said}.{instead}", hint=hint)
    raise XtfCrashError(f"The test came to no result: {said}.{instead}", hint=hint)
