"""Rebuilds what came in a bundle from what came with it, and compares the bytes."""

from __future__ import annotations

from pathlib import Path

from pipeline import log
from pipeline.build import Build
from pipeline.builder import Builder
from pipeline.bundle.receive import Received
from pipeline.errors import FailureError, IntegrityError, UsageError
from pipeline.git.fetch import Place, adopt
from pipeline.scratch import scratch
from pipeline.steps import Steps
from pipeline.version import PROJECT


class DifferentError(FailureError):
    """A rebuild came out differently."""


def rebuild(steps: Steps, received: Received) -> Build:
    """Build a received release anew, with the network used only for what the bundle does not bring.

    ``steps`` are those of the release in this checkout, which must be the one that the bundle was made by.
    Returns the received build. Raises DifferentError naming the packages that differ, and UsageError.
    """
    theirs = received.build
    steps = steps.like(theirs)
    stock(steps, received)
    plan = steps.plan()
    if plan.build_id != theirs.record.build_id:
        raise UsageError(
            f"This checkout makes build {plan.build_id} of {theirs.record.release}, and the bundle holds "
            f"{theirs.record.build_id}.",
            hint="provenance.json in the bundle names the commit that made it.",
        )
    settings = steps.settings
    with scratch(settings.artifacts_folder, ".rebuild") as folder:
        builder = Builder(
            store=settings.open_store,
            artifacts=folder,
            engine=lambda: steps.engine,
            sources=steps.fetch,
            jobs=settings.compile_jobs,
            anew=True,
        )
        ours = builder.build(plan)
    different = [name for name, sha256 in theirs.hashes.items() if ours.hashes.get(name) != sha256]
    if different:
        raise DifferentError(f"Rebuilt differently: {', '.join(different)}.")
    log.info(f"rebuilt to the same bytes: {', '.join(theirs.hashes)}")
    return theirs


def stock(steps: Steps, received: Received) -> None:
    """Put what a bundle brings into the store: each file is compared with this checkout's own pins.

    The tar of a commit has no pin but the commit: that it is its export, the bundle's signer vouches for.
    Raises IntegrityError and StoreError.
    """
    store, settings = steps.settings.open_store, steps.settings
    for entry in received.manifest.within("images"):
        store.add_file(received.folder / entry.path, Path(entry.path).name)
    for source in steps.release.sources:
        path = received.folder / "sources" / source.name
        if path.is_file():
            store.add_file(path, source.sha256)
    brought = {(export.name, export.commit) for export in received.manifest.git}
    place = Place(store, settings.open_mirrors, PROJECT)
    for commit in steps.release.git:
        path = received.folder / "sources" / commit.file_name
        if not path.is_file():
            continue
        if (commit.name, commit.commit) not in brought:
            raise IntegrityError(
                f"The bundle's {commit.file_name} is of another commit than {commit.commit}."
            )
        adopt(commit, place, store.add_file(path))
