"""The engines: whether each is there, answers, and can do what builds ask of it."""

from __future__ import annotations

import os
import platform
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.doctor.finding import Finding, State, Subject
from pipeline.engine.bubblewrap import probe
from pipeline.engine.choice import EngineChoice
from pipeline.engine.job import Limits
from pipeline.errors import PipelineError
from pipeline.transport import why

_PART = "engines"
_NAMESPACES = (
    "Allow user namespaces: sysctl user.max_user_namespaces=65536 kernel.unprivileged_userns_clone=1 "
    "kernel.apparmor_restrict_unprivileged_userns=0 (as far as this kernel has them), or build with docker."
)


def engines(subject: Subject) -> Iterator[Finding]:
    """Look at both engines; trouble is only what keeps the chosen one from working."""
    choice = EngineChoice.parse(subject.settings.engine)
    docker = docker_findings(needed=choice is EngineChoice.DOCKER)
    yield from docker
    answers = docker[0].state is State.FINE
    yield from _bubblewrap(
        needed=choice is EngineChoice.BUBBLEWRAP or (choice is EngineChoice.AUTO and not answers)
    )
    yield from _limits()


def _bubblewrap(*, needed: bool) -> Iterator[Finding]:
    bad = State.TROUBLE if needed else State.NOTE
    if shutil.which("bwrap") is None:
        yield Finding(
            part=_PART, what="bubblewrap", state=bad, says="bwrap is not installed.", remedy="./inv setup"
        )
        return
    try:
        probe()
    except PipelineError as e:
        said = (e.hint or "").rstrip().rpartition("\n")[2]
        yield Finding(
            part=_PART,
            what="bubblewrap",
            state=bad,
            says=f"A sandbox like those of builds does not start: {said or e.message}",
            remedy=_NAMESPACES,
        )
        return
    how = "root's, with a real unprivileged uid" if os.geteuid() == 0 else "rootless, in a user namespace"
    yield Finding(
        part=_PART, what="bubblewrap", state=State.FINE, says=f"A sandbox like those of builds starts: {how}."
    )


def docker_findings(*, needed: bool) -> list[Finding]:
    """Look at the docker engine that DOCKER_HOST or the default socket names."""
    # The docker SDK takes 0.2 s to import, which only those who use it should pay.
    import docker
    import docker.errors
    import requests

    bad = State.TROUBLE if needed else State.NOTE
    address = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    try:
        client = docker.from_env(timeout=5)
        try:
            info: dict[str, Any] = client.info()
        finally:
            client.close()
    except (docker.errors.DockerException, requests.exceptions.RequestException) as e:
        says, remedy = _why_silent(address, e)
        return [Finding(part=_PART, what="docker", state=bad, says=says, remedy=remedy)]
    rootless = any("rootless" in option for option in info.get("SecurityOptions") or [])
    how = "rootless" if rootless else "run by root"
    cgroup = info.get("CgroupVersion", "1")
    says = f"Engine {info.get('ServerVersion')} at {address} answers: {how}, cgroup v{cgroup}."
    return [Finding(part=_PART, what="docker", state=State.FINE, says=says), *_abilities(info, bad)]


def _why_silent(address: str, error: Exception) -> tuple[str, str]:
    """Say why an engine does not answer, and what helps."""
    other = "or leave the engine to auto, which takes bubblewrap then."
    if address.startswith("unix://"):
        socket = Path(address.removeprefix("unix://"))
        if not socket.exists():
            if shutil.which("dockerd") is None:
                return (
                    "No engine is installed here.",
                    "Install one (./inv setup --dev does on Debian), " + other,
                )
            return f"There is no socket {socket}.", "systemctl start docker, " + other
        if not os.access(socket, os.R_OK | os.W_OK):
            return (
                f"{socket} may not be opened by this user.",
                "Join the group docker, use a rootless engine, " + other,
            )
        return f"Nobody answers at {socket}.", "systemctl restart docker, " + other
    return f"Nobody answers at {address}: {why(error)}.", "Look at DOCKER_HOST, " + other


def _abilities(info: dict[str, Any], bad: State) -> Iterator[Finding]:
    """What an engine that answers cannot do for builds."""

    def finding(what: str, says: str, remedy: str) -> Finding:
        return Finding(part=_PART, what=what, state=bad, says=says, remedy=remedy)

    if info.get("OSType") != "linux" or info.get("Architecture") not in ("x86_64", "amd64"):
        found = f"{info.get('OSType')} on {info.get('Architecture')}"
        yield finding(
            "docker's host", f"The engine runs {found}.", "Images are Linux on x86_64: use such an engine."
        )
    for key, what in (("MemoryLimit", "memory"), ("PidsLimit", "processes")):
        if not info.get(key):
            yield finding(
                f"docker: limit of {what}",
                f"The engine cannot limit {what}: a build that runs wild takes the host with it.",
                "Switch the cgroup controllers on (systemd with cgroup v2 does), or use bubblewrap.",
            )
    if any(
        "containerd" in str(pair) for pair in info.get("DriverStatus") or [] if "driver-type" in str(pair)
    ):
        yield finding(
            "docker: image store",
            "The engine has the containerd image store, which counts image ids differently.",
            'Set "features": {"containerd-snapshotter": false} in daemon.json.',
        )


def _limits() -> Iterator[Finding]:
    """Whether this process may give jobs the limits that they are to have."""
    wanted = Limits()
    for what, which, need in (
        ("open files", resource.RLIMIT_NOFILE, wanted.files),
        ("processes", resource.RLIMIT_NPROC, wanted.processes),
    ):
        hard = resource.getrlimit(which)[1]
        if hard != resource.RLIM_INFINITY and hard < need and os.geteuid() != 0:
            yield Finding(
                part=_PART,
                what=f"limit of {what}",
                state=State.TROUBLE,
                says=f"This user may have {hard} {what}; a build is given {need}.",
                remedy="Raise it in /etc/security/limits.conf, or by ulimit -H before.",
            )
    if platform.machine() not in ("x86_64", "amd64"):
        yield Finding(
            part=_PART,
            what="processor",
            state=State.TROUBLE,
            says=f"This host is {platform.machine()}; images hold programs for x86_64.",
            remedy="Use a host of x86_64, or DOCKER_HOST with an engine on one.",
        )
