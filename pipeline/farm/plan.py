"""What a farm is to do, for farm/master.cfg: the releases, the proofs, and who can do what."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

import msgspec

from pipeline import release as releases
from pipeline.evidence import Kind
from pipeline.farm.master import starter
from pipeline.git import history
from pipeline.image.definition import ArchDefinition, read_definition
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


class ReleasePlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A release; ``upstream`` and ``branch`` are what is polled, empty where it follows nothing.

    ``starter`` is the scheduler that builds it when it is asked to.
    """

    name: str
    starter: str
    needs: tuple[Capability, ...]
    channel: str
    branch: str = ""
    upstream: str = ""


class ProofPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A kind of evidence; ``elsewhere``: not by the worker that built."""

    kind: Kind
    needs: tuple[Capability, ...] = ()
    elsewhere: bool = False


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
    proofs: tuple[ProofPlan, ...]
    workers: tuple[WorkerPlan, ...]
    poll: int = 600
    hour: int = 2


def releases_of(settings: Settings) -> tuple[ReleasePlan, ...]:
    """All releases, as a farm sees them."""
    return tuple(_release(settings, releases.read(name)) for name in releases.known())


def _release(settings: Settings, found: Release) -> ReleasePlan:
    definition = read_definition(found.image)
    packaging = read_definition(definition.packaging) if definition.packaging else definition
    arch = any(isinstance(one, ArchDefinition) for one in (definition, packaging))
    needs = (Capability.ARCH,) if arch else ()
    if found.branch is None:
        return ReleasePlan(name=found.name, starter=starter(found.name), needs=needs, channel=Channel.STABLE)
    urls = history.urls(settings.open_mirrors, found.git[0].urls)
    branch = found.branch
    if found.name == settings.nightly.release and settings.nightly.branch:
        branch = settings.nightly.branch
    return ReleasePlan(
        name=found.name,
        starter=starter(found.name),
        needs=needs,
        channel=Channel.UNSTABLE,
        branch=branch,
        upstream=urls[0],
    )


def proofs(steps: Iterable[str]) -> tuple[ProofPlan, ...]:
    """The kinds of evidence that nights make, and what each needs."""
    return tuple(
        ProofPlan(
            kind=kind,
            needs=(Capability.KVM,) if kind is Kind.SMOKE else (),
            elsewhere=kind is Kind.REPRODUCE,
        )
        for kind in map(Kind, steps)
    )
