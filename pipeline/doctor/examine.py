"""All probes at once, and what they found in their order."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from pipeline.doctor.engines import engines
from pipeline.doctor.finding import Finding, Probe, State, Subject
from pipeline.doctor.kernel import kernel
from pipeline.doctor.keys import keys
from pipeline.doctor.network import clock, network
from pipeline.doctor.room import room
from pipeline.doctor.tools import tools
from pipeline.doctor.virtualization import virtualization
from pipeline.errors import PipelineError

PROBES: tuple[Probe, ...] = (engines, virtualization, kernel, room, network, clock, keys, tools)


def examine(subject: Subject, probes: Sequence[Probe] = PROBES) -> list[Finding]:
    """Run the probes side by side; one that cannot finish is a finding itself."""
    with ThreadPoolExecutor(len(probes)) as pool:
        return [
            finding for found in pool.map(lambda probe: _run(probe, subject), probes) for finding in found
        ]


def _run(probe: Probe, subject: Subject) -> list[Finding]:
    found: list[Finding] = []
    try:
        # One by one: what was found before a failure stays.
        for finding in probe(subject):
            found.append(finding)  # noqa: PERF402
    except PipelineError as e:
        found.append(_failed(probe, e.message, e.hint))
    except OSError as e:
        found.append(_failed(probe, f"{e.filename or 'This host'}: {e.strerror or e}.", None))
    return found


def _failed(probe: Probe, message: str, hint: str | None) -> Finding:
    name = probe.__name__
    remedy = hint or "Mend that, and run ./inv doctor again."
    return Finding(part=name, what=name, state=State.TROUBLE, says=message, remedy=remedy)
