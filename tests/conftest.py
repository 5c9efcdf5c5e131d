"""What the integration tests share: a server, images, a docker engine, checkouts of the project."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock
import platformdirs
import pytest

from pipeline.fetch import fetch
from pipeline.image import assembly, debian, locking
from pipeline.image.definition import read_definition
from pipeline.image.lock import parse_lock
from pipeline.mirrors import Mirrors
from pipeline.smoke import supplies
from pipeline.store import Store
from tests import checkouts, servers, small
from tests.checkouts import Checkout, Finished
from tests.released import RELEASE, Released
from tests.small import Small

IMAGE = "debian-bookworm"


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def store() -> Store:
    """The store that the settings name."""
    named = os.environ.get("INVOKE_PIPELINE_STORE")
    return Store(Path(named) if named else platformdirs.user_cache_path("xen-aur-pipeline"))


@pytest.fixture(scope="session")
def image(shared_folder: Path) -> assembly.Image:
    """The image of the releases, in the store that the settings name; assembled on a fresh machine."""
    with filelock.FileLock(shared_folder / "image.lock"):
        return assembly.prepare(IMAGE, store(), Mirrors())


@dataclass(frozen=True)
class Tiny:
    """An image of the tests' own: Debian's essential packages and one more, locked for real."""

    checkout: Checkout
    image: assembly.Image


TINY = """suite = "bookworm"
packages = ["busybox-static"]
"""


@pytest.fixture(scope="session")
def tiny(shared_folder: Path) -> Tiny:
    """An image that is quick to unpack, to verify and to damage; online, as `image.lock` is.

    Making it takes a minute, so it is kept in the store until the code that makes it changes.
    """
    code = [Path(module.__file__).read_bytes() for module in (debian, assembly, locking) if module.__file__]
    key = hashlib.sha256(b"".join([TINY.encode(), *code])).hexdigest()[:16]
    folder = store().root / "tests" / key
    checkout = Checkout(folder / "tiny für sich", folder / "tiny store")
    lock = checkout.root / "containers" / "tiny.lock"
    with filelock.FileLock(shared_folder / "tiny.lock"):
        if not lock.exists():
            shutil.rmtree(folder.parent, ignore_errors=True)
            checkouts.copy(checkout.root)
            lock.with_suffix(".toml").write_text(TINY)
            checkout.run("image.lock", "tiny").fine()
        checkout.run("image", "tiny").fine()
    return Tiny(checkout, assembly.Image("tiny", parse_lock(lock, arch=False), Store(checkout.store)))


@pytest.fixture(scope="session")
def server() -> Iterator[servers.Server]:
    with servers.serving() as server:
        yield server


@pytest.fixture
def source(server: servers.Server) -> Small:
    """The small package; its source is a new one for every test, so nothing is cached from before."""
    unique = secrets.token_hex(8)
    data = small.archive(unique)
    return Small(data, server.add(f"/{unique}/small-1.0.tar.gz", servers.good(data)))


@pytest.fixture
def new_checkout(tmp_path: Path, image: assembly.Image, source: Small) -> Callable[[str], Checkout]:
    """Make checkouts that build the small package, each with a store of its own."""

    def make(name: str) -> Checkout:
        root = checkouts.copy(tmp_path / name)
        source.write(root)
        store = checkouts.private_store(
            tmp_path / f"{name} store", image.store.root, image.lock.rootfs_sha256
        )
        return Checkout(root, store)

    return make


@pytest.fixture
def checkout(new_checkout: Callable[[str], Checkout]) -> Checkout:
    """A checkout that builds the small package."""
    return new_checkout("a copy für sich")


def _docker_answers(host: str | None) -> bool:
    env = {**os.environ, **({"DOCKER_HOST": host} if host else {})}
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(command, env=env, capture_output=True, timeout=20).returncode == 0
    return False


def start_docker(folder: Path) -> tuple[str, int]:
    """Start an engine of the tests' own and return its address and process id."""
    folder.mkdir(exist_ok=True)
    host = f"unix://{folder}/socket"
    places = [f"--{name}={folder}/{name}" for name in ("data-root", "exec-root", "pidfile")]
    command = ["dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", f"--host={host}", *places]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 60
    while not _docker_answers(host):
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.2)
    return host, process.pid


@pytest.fixture(scope="session")
def docker_host(shared_folder: Path) -> Iterator[str]:
    """The address of a docker engine: the host's, or one that the first worker starts and the last stops."""
    if not shutil.which("docker"):
        pytest.skip("docker is not installed")
    if _docker_answers(None):
        yield os.environ.get("DOCKER_HOST", "")
        return
    if not shutil.which("dockerd") or os.geteuid() != 0:
        pytest.skip("no docker engine answers, and none can be started")
    # A socket's address may have 107 bytes only, so it does not lie in pytest's folder.
    state_path, lock = shared_folder / "docker.json", filelock.FileLock(shared_folder / "docker.lock")
    with lock:
        state = json.loads(state_path.read_text()) if state_path.exists() else None
        if state is None:
            folder = Path(f"/tmp/docker-{secrets.token_hex(4)}")
            host, pid = start_docker(folder)
            state = {"host": host, "pid": pid, "users": 0, "folder": str(folder)}
        state["users"] += 1
        state_path.write_text(json.dumps(state))
    yield state["host"]
    with lock:
        state = json.loads(state_path.read_text())
        state["users"] -= 1
        state_path.write_text(json.dumps(state))
        if state["users"] == 0:
            os.kill(state["pid"], signal.SIGTERM)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(state["pid"], 0)
            shutil.rmtree(state["folder"], ignore_errors=True)
            state_path.unlink()


@pytest.fixture
def docker_env(docker_host: str) -> dict[str, str]:
    """What makes a command use docker."""
    return {"INVOKE_PIPELINE_ENGINE": "docker", **({"DOCKER_HOST": docker_host} if docker_host else {})}


@pytest.fixture(scope="session")
def released(shared_folder: Path, image: assembly.Image) -> Released:
    """Xen, built, checked and booted by `inv release`, once for all workers; minutes."""
    checkout = Checkout(shared_folder / "release für alle", image.store.root)
    said = shared_folder / "release.json"
    with filelock.FileLock(shared_folder / "release.lock"):
        if not said.exists():
            checkouts.copy(checkout.root)
            finished = checkout.run("release", RELEASE, timeout=3000).fine()
            said.write_text(json.dumps([finished.out, finished.err, finished.seconds]))
    return Released(checkout, Finished(0, *json.loads(said.read_text())))


@pytest.fixture(scope="session")
def xen_packages(released: Released) -> list[Path]:
    """Xen's packages, as this test run has built them."""
    return released.packages


@pytest.fixture(scope="session")
def image_root(image: assembly.Image) -> Path:
    """The root file system whose libraries the packages were built with."""
    return image.root


@pytest.fixture(scope="session")
def kernel_deb(image: assembly.Image) -> Path:
    """The stock kernel that dom0 runs."""
    assert image.kernel is not None
    source = image.kernel.source
    return fetch([source], image.store, Mirrors())[source.sha256]


@pytest.fixture(scope="session")
def supply_debs(image: assembly.Image) -> dict[str, Path]:
    """What guests of the smoke boots are made of."""
    wanted = supplies.sources(read_definition(image.name).dom0)
    found = fetch(list(wanted.values()), image.store, Mirrors())
    return {name: found[source.sha256] for name, source in wanted.items()}
