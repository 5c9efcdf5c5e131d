"""What a farm is to do, for farm/master.cfg: the releases, the proofs, and who can do what."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

import msgspec

from pipeline import records
from pipeline import release as releases
from pipeline.errors import UsageError
from pipeline.evidence import Kind
from pipeline.farm.master import starter
from pipeline.git import history
from pipeline.image.definition import ArchDefinition, read_definition
from pipeline.nightly import commands
from pipeline.nightly.commands import HOST
from pipeline.release import Release
from pipeline.repository.channel import Channel
from pipeline.settings import Settings

FILE = "farm.json"


class Capability(StrEnum):
    """What one worker has and another lacks."""

    KVM = "kvm"
    DOCKER = "docker"
    ARCH = "arch"
    """Arch's images: they need a lock, and pacman."""


class WorkerPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One worker: ``project`` is its checkout, ``artifacts`` and ``store`` are its folders."""

    name: str
    password: str
    capabilities: tuple[Capability, ...]
    project: Path
    artifacts: Path
    store: Path


class ProofPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A step on what was built, and its command; those of a release are done side by side.

    ``elsewhere``: not by the worker that built. ``evidence``: it leaves some, which publishing asks for.
    """

    name: str
    words: tuple[str, ...]
    needs: tuple[Capability, ...] = ()
    elsewhere: bool = False
    evidence: bool = True


class ReleasePlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A release; ``upstream`` and ``branch`` are what is polled, empty where it follows nothing.

    ``starter`` is the scheduler that builds it when it is asked to.
    """

    name: str
    starter: str
    needs: tuple[Capability, ...]
    proofs: tuple[ProofPlan, ...]
    channel: str
    branch: str = ""
    upstream: str = ""


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A farm; ``farm.json``. ``project``, ``artifacts`` and ``store`` are the master's own.

    ``listen_web`` and ``listen_workers`` are Twisted's names of ports. ``poll`` is in seconds, ``hour`` the
    one when nights begin.
    """

    url: str
    listen_web: str
    listen_workers: str
    project: Path
    artifacts: Path
    store: Path
    publish: bool
    releases: tuple[ReleasePlan, ...]
    workers: tuple[WorkerPlan, ...]
    poll: int = 600
    hour: int = 2

    @property
    def workers_address(self) -> str:
        """Where a worker on the master's own machine reaches it: host and port."""
        match = re.fullmatch(r"tcp:(?:port=)?(\d+)(?::interface=([0-9A-Za-z.-]*))?", self.listen_workers)
        if match is None:
            raise UsageError(
                f"listen_workers of {FILE} is {self.listen_workers!r}.",
                hint="Such as tcp:9989:interface=192.0.2.7.",
            )
        host = "127.0.0.1" if match[2] in (None, "", "0.0.0.0") else match[2]  # noqa: S104
        return f"{host}:{match[1]}"


def read(path: Path) -> Plan | None:
    """Read a farm's plan where there is one; raises UsageError for one that somebody has spoilt."""
    try:
        return records.decode(path.read_bytes(), Plan)
    except FileNotFoundError:
        return None
    except records.RecordError as e:
        raise UsageError(f"{path} cannot be read: {e}", hint="Remove it, and it is made anew.") from e


def releases_of(settings: Settings) -> tuple[ReleasePlan, ...]:
    """All releases, as a farm sees them."""
    return tuple(_release(settings, releases.read(name)) for name in releases.known())


def _release(settings: Settings, found: Release) -> ReleasePlan:
    definition = read_definition(found.image)
    packaging = read_definition(definition.packaging) if definition.packaging else definition
    arch = any(isinstance(one, ArchDefinition) for one in (definition, packaging))
    steps = list(settings.nightly.steps)
    if settings.nightly.full and definition.dom0 is not None:
        steps.append(HOST)
    plan = ReleasePlan(
        name=found.name,
        starter=starter(found.name),
        needs=(Capability.ARCH,) if arch else (),
        proofs=tuple(_proof(step, found.name) for step in steps),
        channel=Channel.STABLE,
    )
    if found.branch is None:
        return plan
    branch = settings.nightly.branch if found.name == settings.nightly.release else ""
    urls = history.urls(settings.open_mirrors, found.git[0].urls)
    return msgspec.structs.replace(
        plan, channel=Channel.UNSTABLE, branch=branch or found.branch, upstream=urls[0]
    )


def _proof(step: str, release: str) -> ProofPlan:
    return ProofPlan(
        name=step,
        words=commands.words(step, release),
        needs=(Capability.KVM,) if step in (Kind.SMOKE, HOST) else (),
        elsewhere=step == Kind.REPRODUCE,
        evidence=step != HOST,
    )
