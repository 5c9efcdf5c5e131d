"""A whole farm on one machine: a master and its workers, processes that listen on the loopback device."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import files, log, records
from pipeline.errors import HostError, UsageError
from pipeline.farm import environment, plan
from pipeline.farm.master import Master
from pipeline.farm.plan import Capability, Plan, WorkerPlan
from pipeline.run import run, running, tail
from pipeline.settings import Settings
from pipeline.version import PROJECT

_HOST = "127.0.0.1"
_MASTER = "master"
_LOCAL = "worker-"
"""How the names of this machine's own workers begin."""
_START = 120.0
"""Seconds that the master may take to answer."""
_AGAIN = 2.0
"""Seconds after which a worker that has died is started again."""


def capabilities() -> tuple[Capability, ...]:
    """What this host can do."""
    from pipeline.engine import docker
    from pipeline.smoke import accelerator

    # Without its probe boot, for which there is no Xen yet: a device alone says nothing without the flags.
    likely = accelerator.choose(b"", boots=lambda _: True)
    found = {
        Capability.KVM: likely.kind is accelerator.Kind.KVM,
        Capability.DOCKER: docker.answers(),
        Capability.ARCH: shutil.which("pacman") is not None,
    }
    return tuple(one for one, there in found.items() if there)


@dataclass
class Farm:
    """A farm in ``folder``: the master's state, and a folder a worker. ``port`` is the web page's, 0 any."""

    settings: Settings
    folder: Path
    count: int
    port: int
    _programs: Path = field(init=False)

    def __post_init__(self) -> None:
        if self.count < 2:
            raise UsageError("A farm has two workers at least.", hint="One builds, another builds it again.")

    @contextlib.contextmanager
    def running(self) -> Iterator[Master]:
        """Have the farm at work; raises HostError where it does not start."""
        self._programs = environment.programs(self.settings.open_store.root)
        made = self._plan()
        self._make(made)
        master = Master(made.url)
        with contextlib.ExitStack() as stack:
            with log.step("Starting the master"):
                process = stack.enter_context(self._process("buildbot", _MASTER))
                self._wait(process, master)
            here = [one.name for one in made.workers if _is_local(one)]
            workers = {name: stack.enter_context(Worker.of(self, name)) for name in here}
            master.watch = lambda: self._watch(process, workers)
            log.info(
                f"{made.url}: {', '.join(workers)}, with {', '.join(capabilities()) or 'nothing special'}"
            )
            yield master

    def _plan(self) -> Plan:
        before = plan.read(self.folder / _MASTER / plan.FILE)
        elsewhere = tuple(one for one in before.workers if not _is_local(one)) if before else ()
        # Workers elsewhere know an address, which must stay what it is.
        listen = before.listen_workers if before and elsewhere else f"tcp:{_free()}:interface={_HOST}"
        web = self.port or _free()
        store = self.settings.open_store.root
        workers = tuple(
            WorkerPlan(
                name=f"{_LOCAL}{number}",
                password=secrets.token_hex(16),
                capabilities=capabilities(),
                project=PROJECT,
                artifacts=self.folder / f"{_LOCAL}{number}" / "artifacts",
                store=store,
            )
            for number in range(1, self.count + 1)
        )
        return Plan(
            url=f"http://{_HOST}:{web}/",
            listen_web=f"tcp:{web}:interface={_HOST}",
            listen_workers=listen,
            project=PROJECT,
            artifacts=self.settings.artifacts_folder,
            store=store,
            publish=self.settings.nightly.publish,
            releases=plan.releases_of(self.settings),
            workers=(*workers, *elsewhere),
        )

    def _make(self, made: Plan) -> None:
        """Write what Buildbot starts from; the master's history stays from one time to the next."""
        master = self.folder / _MASTER
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)  # the workers' passwords
        config = environment.FARM / "master.cfg"
        buildbot, worker = self._programs / "buildbot", self._programs / "buildbot-worker"
        if not (master / "buildbot.tac").exists():
            run([buildbot, "create-master", "--quiet", f"--config={config}", master], env=_environment())
        files.write_bytes(master / plan.FILE, records.encode(made))
        run([buildbot, "upgrade-master", "--quiet", master], env=_environment())
        for one in filter(_is_local, made.workers):
            folder = self.folder / one.name
            (folder / "buildbot.tac").unlink(missing_ok=True)
            who = [made.workers_address, one.name, one.password]
            run([worker, "create-worker", "--quiet", "--umask=0o022", folder, *who], env=_environment())

    def _process(self, program: str, name: str) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        argv = [os.fspath(self._programs / program), "start", "--nodaemon", os.fspath(self.folder / name)]
        return running(argv, env=_environment(), output=self.folder / f"{name}.log")

    def _wait(self, process: subprocess.Popen[bytes], master: Master) -> None:
        deadline = time.monotonic() + _START
        while not master.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / f"{_MASTER}.log").read_text(errors="replace")
                raise HostError("Buildbot's master does not start.", hint=tail(said))
            time.sleep(0.5)

    def _watch(self, process: subprocess.Popen[bytes], workers: dict[str, Worker]) -> None:
        """Start workers that have died again; raises HostError where it is the master that has."""
        if process.poll() is not None:
            raise HostError(
                "Buildbot's master has ended.", hint=f"Its log: {self.folder / _MASTER}/twistd.log"
            )
        for worker in workers.values():
            worker.revive()


@dataclass
class Worker:
    """A worker's process."""

    farm: Farm
    name: str
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _process: subprocess.Popen[bytes] | None = None
    _died: float = 0.0

    @classmethod
    @contextlib.contextmanager
    def of(cls, farm: Farm, name: str) -> Iterator[Worker]:
        """Have a worker at work."""
        worker = cls(farm, name)
        worker._start()
        try:
            yield worker
        finally:
            worker._stack.close()

    def _start(self) -> None:
        self._process = self._stack.enter_context(self.farm._process("buildbot-worker", self.name))

    def revive(self) -> None:
        """Start it again, a little after it has died."""
        assert self._process is not None
        if self._process.poll() is None:
            return
        if not self._died:
            self._died = time.monotonic()
            log.warn(f"{self.name} has died.")
        elif time.monotonic() - self._died > _AGAIN:
            self._died = 0.0
            self._stack.close()
            self._start()
            log.info(f"{self.name} is back.")


def _is_local(worker: WorkerPlan) -> bool:
    return worker.name.startswith(_LOCAL)


def _environment() -> dict[str, str]:
    """What the master, its workers and their commands find: nothing of this process's own Python."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return {**kept, "PYTHONWARNINGS": "ignore"}


def _free() -> int:
    with socket.create_server((_HOST, 0)) as server:
        return int(server.getsockname()[1])
