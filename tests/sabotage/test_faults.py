"""Every fault in the steps that it can befall: a sentence, the right status, nothing half-written, and then
as if nothing had been.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import release
from tests import checkouts
from tests.checkouts import Finished
from tests.conftest import start_docker
from tests.sabotage.conftest import MOMENTS, SOURCE
from tests.sabotage.faults import FAULTS, Fault
from tests.sabotage.ground import STEPS, Field, Ground
from tests.servers import Server
from tests.small import Small

pytestmark = pytest.mark.integration

ROWS = [
    pytest.param(fault, step, id=f"{fault.name}: {step}")
    for fault in FAULTS
    for number, step in enumerate(fault.steps)
    # With all other tests, each fault in the first step that it befalls; and no rare one.
    if MOMENTS or (number == 0 and not fault.rare)
]


def same_again(ground: Ground, wanted: dict[str, str], name: str) -> None:
    """Do the step once more, without the fault; it must come to what it always comes to."""
    again = ground.run()
    if (
        again.status == 3 and "not the file that was built" in again.err
    ) or "build.json is damaged" in again.err:
        # What a user is told to do then.
        ground.checkout.run("build", "small").fine()
        again = ground.run()
    again.fine()
    assert ground.result() == wanted
    assert ground.left_behind() == []


@pytest.mark.parametrize(("fault", "step"), ROWS)
def test_a_fault_is_a_sentence_and_then_forgotten(
    fault: Fault, step: str, ground: Callable[[str], Ground], field: Field, server: Server
) -> None:
    """Whoever is left with a traceback, or with half a result, does not trust the next one."""
    if fault.root_only and os.geteuid() != 0:
        pytest.skip("only root can plant it")
    here = ground(step)
    with fault.plant(here, server) as circumstance:
        ended = here.run(env=circumstance.env, prefix=circumstance.prefix)
    assert "Traceback" not in ended.err, ended.err
    if fault.status == 0 or (fault.status == -1 and ended.status == 0):
        ended.fine()
    elif fault.status == -1:
        ended.failed(3)
    else:
        ended.failed(fault.status)
    assert fault.says in ended.err
    assert [line for line in here.left_behind() if not line.endswith(".part")] == []
    same_again(here, field.undisturbed(step), step)


def moments(name: str) -> list[float]:
    """Seeded moments of a step, as parts of the time that it takes."""
    chance = random.Random(f"{name} {os.environ.get('SABOTAGE_SEED', '1')}")
    return [chance.random() for _ in range(MOMENTS)]


CUTS = [
    pytest.param(step, sign, moment, id=f"{sign.name} at {moment:.3f}: {step}")
    for step in STEPS
    for sign in (signal.SIGKILL, signal.SIGINT)
    for moment in moments(f"{step} {sign.name}")
] or [
    pytest.param("fetch", signal.SIGINT, 0.6, id="SIGINT: fetch"),
    pytest.param("build", signal.SIGKILL, 0.7, id="SIGKILL: build"),
    pytest.param("publish", signal.SIGKILL, 0.8, id="SIGKILL: publish"),
    pytest.param("bundle", signal.SIGKILL, 0.8, id="SIGKILL: bundle"),
]
_took: dict[str, float] = {}


@pytest.mark.parametrize(("step", "sign", "moment"), CUTS)
def test_cut_short_at_any_moment(
    step: str,
    sign: signal.Signals,
    moment: float,
    ground: Callable[[str], Ground],
    field: Field,
    tmp_path: Path,
) -> None:
    """A power cut or an impatient user must cost time only."""
    if step not in _took:
        whole = field.ground(step, tmp_path / "whole")
        _took[step] = whole.run().fine().seconds
        shutil.rmtree(tmp_path / "whole")
    here = ground(step)
    with here.checkout.popen(*here.step.words) as process:
        time.sleep(moment * _took[step])
        process.send_signal(sign)
        _, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    assert process.returncode in (0, -sign, 130), err
    if process.returncode == 130:
        assert "The same command" in err
    time.sleep(0.3)
    assert checkouts.running_in(here.folder) == []
    same_again(here, field.undisturbed(step), step)


def together(*grounds: Ground) -> list[Finished]:
    """Do steps at the same time."""
    ended: list[Finished] = []
    threads = [threading.Thread(target=lambda g=one: ended.append(g.run())) for one in grounds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


@pytest.mark.parametrize("step", STEPS if MOMENTS else ["build"])
def test_two_on_one_store_and_one_artifacts_folder(
    step: str, ground: Callable[[str], Ground], field: Field
) -> None:
    """Two terminals, or a timer and a user: neither must spoil what the other makes."""
    here = ground(step)
    for ended in together(here, here):
        ended.fine()
    same_again(here, field.undisturbed(step), step)


def test_a_path_with_anything_in_it(field: Field, tmp_path: Path) -> None:
    """Users' folders are called what users call them."""
    name = "a b\nc'd\"e$(id)ü€ \\ -x"
    for step in ("build", "publish") if MOMENTS else ("build",):
        here = field.ground(step, tmp_path / f"{name}{step}")
        same_again(here, field.undisturbed(step), step)


def test_two_hundred_releases(ground: Callable[[str], Ground], server: Server) -> None:
    """A project that has lived for years still answers at once."""
    here = ground("fetch")
    one = (here.folder / "project" / "releases" / "small.toml").read_text()
    for number in range(200):
        (here.folder / "project" / "releases" / f"small-{number}.toml").write_text(one)
    assert here.checkout.run("--list").fine().seconds < 10
    listed = here.checkout.run("fetch", "nothing").failed(2).err
    assert "small-199" in listed
    here.checkout.run("fetch", "small-137").fine()
    completed = here.checkout.run("--complete", "--", "build", "small-1")
    assert len(completed.out.splitlines()) == 110 + 1
    assert release.known()  # the project's own are not touched


@pytest.mark.parametrize("step", STEPS if MOMENTS else ["fetch"])
def test_output_that_cannot_be_written(step: str, ground: Callable[[str], Ground], field: Field) -> None:
    """A log on a full disk is the user's to mend, not a reason for a traceback."""
    here = ground(step)
    ended = here.run(prefix=("sh", "-c", 'exec "$@" > /dev/full', "sh"))
    ended.failed(3)
    assert "No space left" in ended.err
    closed = here.run(prefix=("sh", "-c", '"$@" | true', "sh"))
    assert "Traceback" not in closed.err
    assert "Exception ignored" not in closed.err
    same_again(here, field.undisturbed(step), step)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("dockerd"), reason="no engine can be started")
def test_an_engine_that_is_killed_and_started_again(ground: Callable[[str], Ground], field: Field) -> None:
    """An update of docker in the middle of a build must cost that build only."""
    here, folder = ground("build"), Path(f"/tmp/sabotage-{os.getpid()}")
    host, pid = start_docker(folder)
    env = {"INVOKE_PIPELINE_ENGINE": "docker", "DOCKER_HOST": host}
    try:
        with here.checkout.popen("build", "small", env=env) as process:
            assert process.stderr is not None
            assert any(line.strip().startswith("compiling") for line in process.stderr)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            pid = 0
            err = process.stderr.read()
            assert process.wait() == 3, err
        assert "The docker engine failed" in err
        assert "Traceback" not in err
        # A new engine would wait for the old one's containerd, which the kernel is about to end.
        old = Path(f"/proc/{(folder / 'exec-root/containerd/containerd.pid').read_text()}")
        deadline = time.monotonic() + 60
        while old.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        _, pid = start_docker(folder)
        here.run(env=env).fine()
        assert here.result() == field.undisturbed("build")
    finally:
        if pid:
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
        # What the killed one had mounted.
        subprocess.run(["umount", "--lazy", folder / "data-root"], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_build_beyond_its_memory(ground: Callable[[str], Ground], field: Field) -> None:
    """A compiler that wants too much must not take the host along."""
    here = ground("build")
    greedy = Small(SOURCE, "http://mirror.example/small-1.0.tar.gz", build="perl -e '$x = \"a\" x (7 << 30)'")
    good = {p: p.read_bytes() for p in (here.folder / "project").glob("PKGBUILD.in")}
    greedy.write(here.folder / "project")
    ended = here.run().failed(1)
    assert "emory" in ended.err
    for path, data in good.items():
        path.write_bytes(data)
    same_again(here, field.undisturbed("build"), "build")
