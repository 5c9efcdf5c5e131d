"""What an image must be able to do, tried in it: scripts of its definition, run with the network off."""

from __future__ import annotations

from pathlib import Path

from pipeline import log
from pipeline.engine.bubblewrap import Bubblewrap
from pipeline.engine.job import Job, JobFailedError, Limits
from pipeline.errors import FailureError
from pipeline.image.definition import Definition
from pipeline.scratch import scratch
from pipeline.store import Store

_LIMITS = Limits(seconds=120)


class ProofError(FailureError):
    """An image does not do what its definition promises."""


def prove(name: str, definition: Definition, root: Path, store: Store) -> None:
    """Run every proof of an image's definition in its unpacked root.

    Raises ProofError naming the first that fails, with what it said, and EngineError.
    """
    for promise, script in definition.proof.items():
        with scratch(store.root / "scratch", "proof") as folder:
            job = Job(("/bin/bash", "-euo", "pipefail", "-c", script), limits=_LIMITS)
            lines: list[str] = []
            try:
                Bubblewrap(folder).run_in(job, root, name, folder, lines.append)
            except JobFailedError as e:
                raise ProofError(
                    f"Image {name} does not do what its definition promises: {promise}.",
                    hint="\n".join([*lines[-10:], f"The script was: {script.strip()}"]),
                ) from e
    if definition.proof:
        log.info(f"proven: {', '.join(definition.proof)}")
