"""doctor, on hosts that lack one thing each: the fault is planted, and the line and its remedy are read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.doctor.examine import PROBES, examine
from pipeline.doctor.finding import Finding, State, Subject
from pipeline.doctor.keys import signing_key
from pipeline.doctor.network import clock, network
from pipeline.doctor.room import memory
from pipeline.doctor.tools import Tool, look
from pipeline.doctor.virtualization import flags
from pipeline.errors import CommandError
from pipeline.release import Release
from pipeline.settings import Settings
from tests import checkouts, keys, servers
from tests.checkouts import Checkout
from tests.small import RELEASE, archive

SILENT = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy whose default release asks no server outside."""
    folder = tmp_path_factory.mktemp("doctor")
    mirror = folder / "mirror"
    mirror.mkdir()
    root = checkouts.copy(folder / "a copy für sich")
    (root / "invoke.yaml").write_text(
        f'pipeline:\n  release: "4.17"\n  mirrors:\n    rewrites:\n      "debian:": ["{mirror.as_uri()}"]\n'
    )
    return Checkout(root, folder / "store", {"INVOKE_PIPELINE_RELEASE": "4.17", **SILENT})


def found(
    checkout: Checkout, *arguments: str, status: int | None = None, **options: Any
) -> dict[str, Finding]:
    """Run it with --json and return the findings by what they are about."""
    finished = checkout.run("doctor", "--json", *arguments, **options)
    assert "Traceback" not in finished.err
    report = json.loads(finished.out)
    assert finished.status == (0 if report["able"] else 3)
    assert status is None or finished.status == status
    findings = [Finding(**{**row, "state": State(row["state"])}) for row in report["findings"]]
    for finding in findings:
        assert finding.remedy or finding.state is not State.TROUBLE, finding
    return {finding.what: finding for finding in findings}


def without(tmp_path: Path, *missing: str) -> dict[str, str]:
    """A PATH with all that is on the host's, but for some programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for place in os.environ["PATH"].split(":"):
        for program in Path(place).iterdir() if Path(place).is_dir() else []:
            if program.name not in missing and not (folder / program.name).exists():
                (folder / program.name).symlink_to(program)
    return {"PATH": str(folder)}


def test_says_what_it_looked_at_and_ends_with_a_verdict(checkout: Checkout) -> None:
    """A newcomer runs it first, to learn whether the next hour is worth it."""
    finished = checkout.run("doctor")
    for part in ("engines", "virtualization", "kernel", "room", "mirrors", "clock", "keys", "tools"):
        assert f"{part}\n" in finished.out
    assert "\033[" not in finished.out
    assert finished.out.splitlines()[-1].startswith("Release 4.17 can")


def test_a_host_without_any_engine_is_in_trouble(checkout: Checkout, tmp_path: Path) -> None:
    """Otherwise the first build would tell, after the images were made."""
    seen = found(checkout, env=without(tmp_path, "bwrap", "dockerd"), status=3)
    assert seen["bubblewrap"].state is State.TROUBLE
    assert "not installed" in seen["bubblewrap"].says
    assert seen["docker"].state is State.NOTE
    assert "No engine is installed" in seen["docker"].says


def test_the_engine_that_the_settings_name_must_answer(checkout: Checkout, tmp_path: Path) -> None:
    """Where docker is set, bubblewrap does not stand in for it."""
    (tmp_path / "socket").touch()
    for host, says in (
        ("unix:///nonexistent/docker.sock", "/nonexistent/docker.sock"),
        (f"unix://{tmp_path}/socket", "Nobody answers at"),
        ("tcp://127.0.0.1:9", "Nobody answers at tcp://127.0.0.1:9"),
    ):
        env = {"INVOKE_PIPELINE_ENGINE": "docker", "DOCKER_HOST": host}
        docker = found(checkout, env=env, status=3)["docker"]
        assert docker.state is State.TROUBLE
        assert says in docker.says or "No engine is installed" in docker.says


def test_an_engine_that_cannot_do_what_builds_ask_is_told(checkout: Checkout, server: servers.Server) -> None:
    """A build without its limits takes the host with it; another image store ends every build."""
    info = {
        "ServerVersion": "99.1",
        "OSType": "linux",
        "Architecture": "aarch64",
        "SecurityOptions": ["name=seccomp,profile=default", "name=rootless"],
        "MemoryLimit": False,
        "PidsLimit": True,
        "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
        "CgroupVersion": "2",
    }
    server.add("/version", servers.good(json.dumps({"ApiVersion": "1.44"}).encode()))
    server.add("/v1.44/info", servers.good(json.dumps(info).encode()))
    address = server.root.replace("http", "tcp")
    seen = found(checkout, env={"DOCKER_HOST": address})
    assert seen["docker"].says == f"Engine 99.1 at {address} answers: rootless, cgroup v2."
    assert "aarch64" in seen["docker's host"].says
    assert "memory" in seen["docker: limit of memory"].says
    assert "docker: limit of processes" not in seen
    assert "containerd" in seen["docker: image store"].says


@needs_root
def test_a_kernel_that_gives_no_namespaces(checkout: Checkout) -> None:
    """bubblewrap's own message is one line of errno; the sysctl is what helps."""
    forbid = (
        'echo 0 > /proc/sys/user/max_user_namespaces; echo 0 > /proc/sys/user/max_net_namespaces; exec "$@"'
    )
    prefix = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh"]
    seen = found(checkout, prefix=prefix, status=3)
    assert seen["user namespaces"].state is State.NOTE
    assert seen["bubblewrap"].state is State.TROUBLE
    assert "max_user_namespaces" in seen["bubblewrap"].remedy


def test_a_store_that_cannot_be_written_to(checkout: Checkout) -> None:
    """A read-only folder would end the first download."""
    seen = found(checkout, env={"INVOKE_PIPELINE_STORE": "/proc/store"}, status=3)
    assert seen["store"].state is State.TROUBLE
    assert "/proc cannot be written to" in seen["store"].says
    assert "INVOKE_PIPELINE_STORE" in seen["store"].remedy


@needs_root
def test_a_disk_that_is_too_small(checkout: Checkout, tmp_path: Path) -> None:
    """A full disk after an hour is the dearest way to learn it."""
    mount = f'mount -t tmpfs -o size=8m none "{tmp_path}" && exec "$@"'
    prefix = ["unshare", "--mount", "sh", "-c", mount, "sh"]
    seen = found(checkout, prefix=prefix, env={"INVOKE_PIPELINE_STORE": f"{tmp_path}/store"}, status=3)
    assert seen["store"].state is State.TROUBLE
    assert "8.0 MiB free" in seen["store"].says


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    settings = Settings(
        release="x", store=str(tmp_path / "store"), artifacts=str(tmp_path / "artifacts"), jobs=4
    )
    release = Release(version="1", xen_version="1", source_date_epoch=1700000000, image="debian-bookworm")
    return Subject(settings, release)


def test_memory_counts_within_the_cgroups_limit(subject: Subject, tmp_path: Path) -> None:
    """In a container /proc/meminfo is the host's: a compiler would be killed in the middle."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(
        "MemTotal: 99 kB\nMemAvailable:   8388608 kB\nSwapFree: 1048576 kB\nHugePages_Total: 0\n"
    )
    assert memory(subject, meminfo, tmp_path / "none").state is State.FINE
    assert memory(subject, meminfo, tmp_path / "none").says.startswith("9.0 GiB")
    (tmp_path / "max").write_text("1073741824\n")
    limited = memory(subject, meminfo, tmp_path / "max")
    assert (limited.state, limited.says[:7]) == (State.TROUBLE, "1.0 GiB")


def test_the_wikis_test_of_the_flags(tmp_path: Path) -> None:
    """The wiki asks for vmx or svm; a flag that only contains the letters is none."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor : 0\nflags\t\t: fpu svm lm\nprocessor : 1\nflags\t\t: fpu svm lm\nbugs : x\n"
    )
    assert "finds svm on 2 processors" in flags(cpuinfo).says
    cpuinfo.write_text("model name : vmx svm\nflags\t\t: fpu vmx_ svml lm\n")
    assert flags(cpuinfo).state is State.NOTE
    assert "BIOS" in flags(cpuinfo).remedy


@pytest.fixture
def place(subject: Subject, server: servers.Server) -> str:
    """A server whose only file is what the release needs."""
    data = archive("doctor")
    url = f"{server.root}/doctor/small.tar.gz"

    text = RELEASE.format(image="none", url=url, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    release = msgspec.convert(tomllib.loads(text), Release)
    object.__setattr__(subject, "release", release)
    object.__setattr__(subject, "locks", {})
    return url


def test_a_mirror_that_answers_and_one_that_does_not(
    subject: Subject, place: str, server: servers.Server
) -> None:
    """The one that is missing decides; the others are notes, or nobody could tell what matters."""
    server.add("/doctor/small.tar.gz", servers.good(b"x" * 10))
    (answer,) = network(subject)
    assert answer.state is State.FINE
    assert "still to be fetched there: 1" in answer.says


def test_a_mirror_without_the_file(subject: Subject, place: str, server: servers.Server) -> None:
    """A server that is up but lacks the file is as bad as none."""
    server.routes.pop("/doctor/small.tar.gz", None)
    (answer,) = network(subject)
    assert answer.state is State.TROUBLE
    assert "404" in answer.says
    assert "mirrors.rewrites" in answer.remedy


def test_a_clock_that_is_wrong_by_the_servers(subject: Subject, place: str, server: servers.Server) -> None:
    """Certificates and signatures fail one after the other, and none says that it is the clock."""

    def late(handler: servers.Handler) -> None:
        handler.send_response_only(206)
        handler.send_header(
            "Date", time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() - 7200))
        )
        handler.send_header("Content-Length", "1")
        handler.end_headers()
        handler.wfile.write(b"x")

    server.add("/doctor/small.tar.gz", late)
    (finding,) = clock(subject)
    assert finding.state is State.TROUBLE
    assert "2 h 00 min" in finding.says


def test_a_key_that_cannot_sign_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be found out after the build, when the packages are to be signed."""
    with keys.some() as four:
        for name, state, says in (
            ("mine", State.FINE, "it may sign"),
            ("old", State.TROUBLE, "has expired"),
        ):
            monkeypatch.setenv("GNUPGHOME", str(four[name].home))
            finding = signing_key(four[name].fingerprint, time.time())
            assert (finding.state, says in finding.says) == (state, True), finding
        assert "no secret key" in signing_key("0" * 40, time.time()).says
        four["other"].revoke()
        monkeypatch.setenv("GNUPGHOME", str(four["other"].home))
        assert "revoked" in signing_key(four["other"].fingerprint, time.time()).says
        four["mine"].gpg("--quick-set-expire", four["mine"].fingerprint, "5d")
        monkeypatch.setenv("GNUPGHOME", str(four["mine"].home))
        assert signing_key(four["mine"].fingerprint, time.time()).state is State.NOTE


@pytest.mark.parametrize(
    ("script", "state", "says"),
    [
        ("echo thing 1.10.2", State.FINE, "1.10.2"),
        ("echo thing 1.9", State.TROUBLE, "version 1.9"),
        ("exit 127", State.TROUBLE, "does not start"),
    ],
)
def test_a_tool_that_is_too_old_or_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, state: State, says: str
) -> None:
    """Old tools fail in the middle of a step, in words of their own."""
    tool = tmp_path / "thing"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    finding = look("thing", Tool(version=("--version",), since="1.10", needed_by="tests"))
    assert (finding.state, says in finding.says) == (state, True), finding


def test_a_tool_that_is_missing(tmp_path: Path) -> None:
    """It is named with what needs it: not everybody sends packages."""
    assert shutil.which("no-such-program") is None
    finding = look("no-such-program", Tool(version=(), needed_by="nobody"))
    assert finding.state is State.TROUBLE
    assert "needed by nobody" in finding.says


def test_a_probe_that_fails_is_a_line_and_no_end(subject: Subject) -> None:
    """The other lines are what a user needs then."""

    def breaks(_: Subject) -> Iterator[Finding]:
        yield Finding(part="x", what="before", state=State.FINE, says="")
        raise CommandError("It broke.", hint="Mend it.")

    def denied(_: Subject) -> Iterator[Finding]:
        yield from ()
        raise PermissionError(13, "Permission denied", "/somewhere")

    findings = examine(subject, [breaks, denied])
    assert [finding.what for finding in findings] == ["before", "breaks", "denied"]
    assert findings[1].remedy == "Mend it."
    assert "/somewhere: Permission denied" in findings[2].says
    assert len(PROBES) == 8
