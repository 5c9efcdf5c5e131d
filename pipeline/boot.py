"""A release's packages, booted: the smoke boots' two tiers with the release's image, kernel and store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import log
from pipeline.errors import HostError, UsageError
from pipeline.evidence import Outcome, ProofFailedError
from pipeline.fetch import fetch
from pipeline.image.definition import read_definition
from pipeline.smoke import supplies
from pipeline.smoke.full.tier import smoke_host
from pipeline.smoke.page import PAGE
from pipeline.smoke.results import SmokeResult, Verdict
from pipeline.smoke.suite import smoke
from pipeline.steps import Steps

if TYPE_CHECKING:
    from pipeline.smoke.attach import Terminal
    from pipeline.smoke.plan import Suite


def boot(
    steps: Steps,
    packages: Sequence[Path],
    output: Path,
    suite: Suite | None = None,
    command: Sequence[str] = (),
    terminal: Terminal | None = None,
) -> SmokeResult:
    """Boot packages directly with the release's image and kernel; see `fast`, whose result is a proof's."""
    image, settings = steps.image(), steps.settings
    if image.kernel is None:
        raise UsageError(f"Image {image.name} names no kernel to boot (at kernel of its definition).")
    kernel, more = image.kernel.source, supplies.sources(read_definition(image.name).dom0)
    everything = [kernel, *more.values()]
    found = fetch(everything, settings.open_store, settings.open_mirrors, jobs=settings.downloads)
    return smoke(
        packages,
        image_root=image.root,
        kernel=found[kernel.sha256],
        supplies={name: found[each.sha256] for name, each in more.items()},
        xen_version=steps.release.xen_version,
        output=output,
        scratch=settings.open_store.root / "smoke",
        suite=suite,
        rerun=lambda case: (*command, "--case", case),
        terminal=terminal,
    )


def fast(
    steps: Steps,
    packages: Sequence[Path],
    output: Path,
    command: Sequence[str],
    suite: Suite | None = None,
    terminal: Terminal | None = None,
) -> Outcome:
    """Boot packages directly, for the cases of a suite, or all; verdicts and consoles go to ``output``.

    ``command`` makes them again, ``terminal`` is attached to the machine of its case. Raises HostError where
    it was the test bed that failed, and UsageError where the image has no kernel.
    """
    with log.step("Booting the packages"):
        result = boot(steps, packages, output, suite, command, terminal)
    image = steps.image()
    assert image.kernel is not None
    tools = {"image": image.id, "kernel": image.kernel.source.name, "qemu": result.qemu_version}
    failed = "; ".join(f"{f.title}: {f.evidence.rstrip('.')}" for f in result.failures)
    where = f"Verdicts, consoles and timeline: {output / PAGE}"
    for note in result.notes:
        log.warn(note)
    if result.verdict is Verdict.INFRASTRUCTURE:
        raise HostError(f"The test bed failed, which says nothing of the packages: {failed}.", hint=where)
    log.info(where)
    # Where nothing was applicable, nothing was proven; asked for a few cases only, that is an answer.
    good = (Verdict.PASS,) if suite is None else (Verdict.PASS, Verdict.NOT_APPLICABLE)
    if result.verdict not in good:
        return Outcome(False, failed or "; ".join(result.notes).rstrip(".") or result.summary, tools)
    return Outcome(True, result.summary, tools)


def host(
    steps: Steps,
    packages: Sequence[Path],
    name: str,
    output: Path,
    command: Sequence[str],
    cases: Sequence[str] = (),
    terminal: Terminal | None = None,
) -> str:
    """Install packages on a whole host made of the image ``name`` and start it; returns how it ended.

    Results and serial logs go to ``output``; ``cases`` names some to make alone. Raises HostError where
    it was the test bed that failed, ProofFailedError where it was the packages.
    """
    image, settings = steps.named_image(name), steps.settings
    if image.kernel is None:
        raise UsageError(f"Image {name} names no kernel to boot (at kernel of its definition).")
    with log.step("Installing the packages on a host, and starting it"):
        source = image.kernel.source
        found = fetch([source], settings.open_store, settings.open_mirrors, jobs=1)
        result = smoke_host(
            packages,
            image_root=image.root,
            kernel=found[source.sha256],
            xen_version=steps.release.xen_version,
            output=output,
            scratch=settings.open_store.root / "smoke",
            only=cases,
            rerun=command or ("./inv", "smoke", steps.release.name, "--suite", "full"),
            terminal=terminal,
        )
    failed = "; ".join(f"{f.title}: {f.evidence.rstrip('.')}" for f in result.failures)
    log.info(f"Results and serial logs: {output}")
    if result.verdict is Verdict.INFRASTRUCTURE:
        raise HostError(f"The test bed failed, which says nothing of the packages: {failed}.")
    if result.verdict is not Verdict.PASS:
        raise ProofFailedError(f"Smoke failed in the full tier: {failed}.")
    passed = sum(case.verdict is Verdict.PASS for case in result.cases)
    return f"{passed} cases passed on an installed host under {result.accelerator.kind}"
