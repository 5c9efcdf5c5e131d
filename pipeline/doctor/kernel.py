"""What the kernel lets this user do: namespaces, overlays, FUSE and loop devices, each tried out."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.doctor.finding import Finding, State, Subject
from pipeline.errors import PipelineError
from pipeline.run import run

_PART = "kernel"


def kernel(_: Subject) -> Iterator[Finding]:
    """Try each; none is trouble by itself, as the parts that cannot do without say so themselves."""
    own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    yield _tried(
        "user namespaces",
        ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "true"],
        "can be made by this user",
        "bubblewrap needs them where root does not build: sysctl user.max_user_namespaces, "
        "kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns.",
    )
    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        for name in ("lower", "upper", "work", "merged"):
            (Path(folder) / name).mkdir()
        mount = "mount -t tmpfs none upper && mkdir upper/u upper/w && " + shlex.join(
            [
                "mount",
                "-t",
                "overlay",
                "-o",
                "lowerdir=lower,upperdir=upper/u,workdir=upper/w",
                "none",
                "merged",
            ]
        )
        yield _tried(
            "overlay file systems",
            ["unshare", *own, "--mount", "sh", "-c", f"cd {shlex.quote(folder)} && {mount}"],
            "can be mounted",
            "Only docker's overlay2 driver needs them: modprobe overlay, or another storage driver.",
        )
    yield _opened("/dev/fuse", "FUSE", "reproduce's variation `order` is left out without it: modprobe fuse.")
    yield _opened(
        "/dev/loop-control", "loop devices", "No command needs them; the tests of full disks use tmpfs then."
    )


def _tried(what: str, argv: list[str], fine: str, remedy: str) -> Finding:
    try:
        run(argv, timeout=20)
    except PipelineError as e:
        said = (e.hint or "").rstrip().rpartition("\n")[2] or e.message
        return Finding(
            part=_PART, what=what, state=State.NOTE, says=f"Tried, and failed: {said}", remedy=remedy
        )
    return Finding(part=_PART, what=what, state=State.FINE, says=f"{what.capitalize()} {fine}.")


def _opened(device: str, what: str, remedy: str) -> Finding:
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as e:
        says = f"{device} does not open: {e.strerror}."
        return Finding(part=_PART, what=what, state=State.NOTE, says=says, remedy=remedy)
    return Finding(part=_PART, what=what, state=State.FINE, says=f"{device} opens.")
