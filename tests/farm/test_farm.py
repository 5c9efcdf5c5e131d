"""A real Buildbot master and its workers: what one builds another one proves, whatever dies meanwhile."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import files, records
from pipeline import release as releases
from pipeline.errors import HostError, UsageError
from pipeline.evidence import Kind
from pipeline.farm import environment, plan
from pipeline.farm.local import Farm
from pipeline.farm.master import Master, starter
from pipeline.farm.plan import Capability
from pipeline.settings import Settings
from tests import checkouts
from tests.checkouts import Checkout
from tests.conftest import store
from tests.small import Small

# No smoke, of whatever tier: there is no Xen in it.
OWN = """pipeline:
  release: small
  engine: bubblewrap
  nightly: {steps: [check, reproduce], full: false, publish: false}
"""


@given(st.text(min_size=1))
def test_any_release_can_be_started(name: str) -> None:
    """Buildbot refuses to start where one scheduler has a letter in its name that it does not know."""
    assert re.fullmatch(r"[A-Za-z_-][A-Za-z0-9_-]*", starter(name))


def test_the_farm_knows_what_one_machine_knows() -> None:
    """A release that is added must not need a second description here."""
    found = {one.name: one for one in plan.releases_of(Settings(release="4.17"))}
    assert found.keys() == set(releases.known())
    assert (found["4.17"].channel, found["4.17"].branch) == ("stable", "")
    assert (found["unstable"].channel, found["unstable"].branch) == ("unstable", "master")
    assert found["unstable"].upstream == releases.read("unstable").git[0].urls[0]
    proofs = {one.name: one for one in found["4.17"].proofs}
    assert {name for name, one in proofs.items() if one.evidence} == set(Kind)
    assert [name for name, one in proofs.items() if one.elsewhere] == [Kind.REPRODUCE]
    assert proofs[Kind.SMOKE].needs == (Capability.KVM,)
    assert proofs[Kind.CHECK].words == ("check", "4.17")


def test_one_worker_is_no_farm(tmp_path: Path) -> None:
    """It would wait for ever for another one to build it again."""
    with pytest.raises(UsageError, match="two workers"):
        Farm(Settings(release="4.17"), tmp_path, 1, 0)


def test_workers_elsewhere_stay(tmp_path: Path) -> None:
    """Who has added one would have to do it again after each start, with another password and port."""
    farm = Farm(Settings(release="4.17"), tmp_path, 2, 0)
    path = tmp_path / "master" / plan.FILE
    path.parent.mkdir()
    first = farm._plan()
    assert first.workers_address.startswith("127.0.0.1:")
    far = msgspec.structs.replace(first.workers[0], name="far", password="theirs")
    listen = "tcp:9989:interface=192.0.2.7"
    changed = msgspec.structs.replace(first, workers=(*first.workers, far), listen_workers=listen)
    files.write_bytes(path, records.encode(changed))
    second = farm._plan()
    assert [one.name for one in second.workers] == ["worker-1", "worker-2", "far"]
    assert second.workers[-1] == far
    assert (second.listen_workers, second.workers_address) == (listen, "192.0.2.7:9989")
    odd = msgspec.structs.replace(changed, listen_workers="unix:/run/farm")
    with pytest.raises(UsageError, match="unix:/run/farm"):
        _ = odd.workers_address
    path.write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        farm._plan()


def test_a_store_that_buildbot_cannot_work_in_is_said(tmp_path: Path) -> None:
    """It failed with forty lines about a module that has nothing to do with it."""
    with pytest.raises(UsageError, match="has a space in it"):
        environment.programs(tmp_path / "my store")


class Busy(BaseHTTPRequestHandler):
    """Answers as a busy Buildbot did: the first times with what is no answer."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(200)
        body = b'{"builds": []}'
        if self.asked < 3:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_busy_master_is_asked_again() -> None:
    """One answer that cannot be read ended a release after three quarters of an hour."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert Master(f"http://127.0.0.1:{server.server_port}/").busy() == {}
        server.shutdown()
    assert Busy.asked == 3


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def kill(folder: Path) -> None:
    """Kill a worker as a machine that goes down does: without a word."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (path / "cmdline").read_bytes().decode().split("\0")
            if str(folder) in words and any(word.endswith("/buildbot-worker") for word in words):
                os.kill(int(path.name), signal.SIGKILL)


def wait_for(process: subprocess.Popen[str], what: Callable[[], str | None], seconds: float = 240) -> str:
    """Wait until something is there, and return it; a farm that has ended is not waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        with contextlib.suppress(HostError):
            if (found := what()) is not None:
                return found
        time.sleep(0.2)
    raise AssertionError("it did not come")


@pytest.mark.integration
def test_a_worker_that_is_killed_loses_nothing(
    new_checkout: Callable[[str], Checkout], source: Small, tmp_path: Path
) -> None:
    """Its build is done again; what was built is proven by another worker than the one that built it."""
    checkout = new_checkout("farm")
    # Long enough to be killed in the middle.
    replace(source, build="sleep 4").write(checkout.root)
    (checkout.root / ".venv").symlink_to(sys.prefix)
    # Buildbot is installed once for all runs.
    (store().root / "farm").mkdir(parents=True, exist_ok=True)
    (checkout.store / "farm").symlink_to(store().root / "farm")
    (tmp_path / "own.yaml").write_text(OWN)
    folder, port = tmp_path / "the farm", free_port()
    words = ("-f", str(tmp_path / "own.yaml"), "farm", "--release", "small", "--folder", str(folder))
    master = Master(f"http://127.0.0.1:{port}/")
    with checkout.popen(*words, "--port", str(port)) as process:
        try:
            builds = lambda: next((w for w, what in master.busy().items() if what == "small build"), None)  # noqa: E731
            victim = wait_for(process, builds)
            wait_for(process, lambda: "yes" if checkouts.running_in(checkout.store / "scratch") else None)
            kill(folder / victim)
            out, err = process.communicate(timeout=400)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert f"{victim} has died." in err
    rows = [re.split(r"  +", line) for line in out.splitlines()]
    ended = [(name, result) for name, _, result, _ in rows]
    assert ("small build", "retry") in ended
    assert {("small build", "success"), ("small check", "success"), ("small", "success")} <= set(ended)
    by = {name: worker for name, worker, result, _ in rows if result == "success"}
    assert by["small reproduce"] != by["small build"]
    # What was proven is here, and its bundle says by whom.
    latest = checkout.artifacts / "small" / "latest"
    for kind in ("check", "reproduce"):
        assert '"passed": true' in (latest / "evidence" / f"{kind}.json").read_text()
    assert list((checkout.artifacts / "bundles").iterdir())
    assert checkouts.running_in(folder) == []
