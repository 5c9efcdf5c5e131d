"""The table: what goes wrong, in which steps, and what the user is told then.

A fault is planted by a function that gets the ground and yields how the step is run; after it has ended, the
fault is gone. ``heals``: the step itself notices and mends it, and ends well.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import servers
from tests.sabotage.ground import PLACE, Ground
from tests.servers import Server


@dataclass(frozen=True)
class Circumstance:
    """How a step is run while the fault is there."""

    env: Mapping[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()


Plant = Callable[[Ground, Server], AbstractContextManager[Circumstance]]


@dataclass(frozen=True)
class Fault:
    """One row: its name, how it is planted, in which steps, and the status and words to be expected.

    -1 stands for either 0 or 3: a disk may just be large enough.
    """

    name: str
    plant: Plant
    steps: tuple[str, ...]
    status: int
    says: str
    root_only: bool = False
    rare: bool = False


def _mirror(behaviour: Callable[[bytes], servers.Behaviour]) -> Plant:
    """A mirror that misbehaves while the fault is there."""

    @contextlib.contextmanager
    def plant(ground: Ground, server: Server) -> Iterator[Circumstance]:
        from tests.sabotage.conftest import SOURCE

        server.add("/sabotage/small-1.0.tar.gz", behaviour(SOURCE))
        yield Circumstance()
        server.add("/sabotage/small-1.0.tar.gz", servers.good(SOURCE))

    return plant


def _rewritten(url: Callable[[Server], AbstractContextManager[str]]) -> Plant:
    """A mirror somewhere else while the fault is there."""

    @contextlib.contextmanager
    def plant(ground: Ground, server: Server) -> Iterator[Circumstance]:
        settings = ground.folder / "project" / "invoke.yaml"
        good = settings.read_text()
        with url(server) as other:
            rewrites = f'mirrors: {{rewrites: {{"{PLACE}": ["{other}"]}}}}'
            settings.write_text(f"pipeline:\n  release: small\n  {rewrites}\n")
            yield Circumstance()
        settings.write_text(good)

    return plant


@contextlib.contextmanager
def _nobody(_: Server) -> Iterator[str]:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}/"


@contextlib.contextmanager
def _unknown_name(_: Server) -> Iterator[str]:
    yield "http://no-such-host.invalid/"


@contextlib.contextmanager
def _untrusted(_: Server) -> Iterator[str]:
    """A server whose certificate nobody vouches for."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as listener:
        key, cert = Path(name) / "key", Path(name) / "cert"
        make = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ]
        subprocess.run([*make, "-keyout", key, "-out", cert], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)

        def serve() -> None:
            while True:
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    with context.wrap_socket(connection, server_side=True) as wrapped:
                        wrapped.recv(1000)
                if listener.fileno() < 0:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield f"https://localhost:{listener.getsockname()[1]}/"


def _damage(find: Callable[[Ground], Path], how: Callable[[Path], None]) -> Plant:
    """A file that is not what it was."""

    @contextlib.contextmanager
    def plant(ground: Ground, server: Server) -> Iterator[Circumstance]:
        path = find(ground)
        path.parent.chmod(0o755)
        how(path)
        yield Circumstance()

    return plant


def source_entry(ground: Ground) -> Path:
    import hashlib

    from tests.sabotage.conftest import SOURCE

    name = hashlib.sha256(SOURCE).hexdigest()
    return ground.store / "sha256" / name[:2] / name


def _staging(ground: Ground) -> Path:
    import json

    record = json.loads(next((ground.store / "compiled").glob("*.json")).read_text())
    name = str(record["staging_sha256"])
    shutil.rmtree(ground.latest.resolve())  # or nobody would look at it
    return ground.store / "sha256" / name[:2] / name


def _compiled_record(ground: Ground) -> Path:
    shutil.rmtree(ground.latest.resolve())
    return next((ground.store / "compiled").glob("*.json"))


def _package(ground: Ground) -> Path:
    return min(ground.latest.glob("small-1*.pkg.tar.xz")).resolve()


def _build_record(ground: Ground) -> Path:
    return (ground.latest / "build.json").resolve()


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    _rewrite(path, bytes(data))


def _truncate(path: Path) -> None:
    _rewrite(path, path.read_bytes()[:-7])


def _empty(path: Path) -> None:
    _rewrite(path, b"")


def _rewrite(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _garbage(path: Path) -> None:
    _rewrite(path, b'{"nonsense": [1, 2')


def _small_disk(where: str, kib: int) -> Plant:
    """The folder lies on a file system that has that many KiB left."""

    @contextlib.contextmanager
    def plant(ground: Ground, server: Server) -> Iterator[Circumstance]:
        folder = {"store": ground.store, "artifacts": ground.artifacts}[where]
        aside, back = (folder.with_name(f"{folder.name} {word}") for word in ("aside", "back"))
        folder.rename(aside)
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "none", folder], check=True)
        try:
            # The image's tar is too large to be copied; nothing writes to it.
            _copy_small(aside, folder)
            used = shutil.disk_usage(folder).used >> 10
            subprocess.run(["mount", "-o", f"remount,size={used + kib}k", folder], check=True)
            yield Circumstance()
            shutil.copytree(folder, back, symlinks=True)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)
        # What the full disk was left with, on a larger one.
        for path in back.rglob("*"):
            target = aside / path.relative_to(back)
            if path.is_file() and not path.is_symlink():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                shutil.copy2(path, target)
        folder.rmdir()
        aside.rename(folder)
        shutil.rmtree(back)

    return plant


def _copy_small(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")):
        there = target / path.relative_to(source)
        if path.is_symlink():
            there.symlink_to(os.readlink(path))
        elif path.is_dir():
            there.mkdir(exist_ok=True)
        elif path.stat().st_size > 50 << 20:
            there.symlink_to(path)
        else:
            shutil.copy2(path, there)


def _read_only(where: str) -> Plant:
    """The folder may not be written to, not even by root."""

    @contextlib.contextmanager
    def plant(ground: Ground, server: Server) -> Iterator[Circumstance]:
        folder = {"store": ground.store, "artifacts": ground.artifacts}[where]
        subprocess.run(["mount", "--bind", folder, folder], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
            yield Circumstance()
        finally:
            subprocess.run(["umount", "-l", folder], check=True)

    return plant


def _run_as(*prefix: str, **env: str) -> Plant:
    @contextlib.contextmanager
    def plant(ground: Ground, server: Server) -> Iterator[Circumstance]:
        yield Circumstance(env, tuple(prefix))

    return plant


@contextlib.contextmanager
def _dead_engine(ground: Ground, server: Server) -> Iterator[Circumstance]:
    """An engine that takes a connection and hangs up."""
    path = Path("/tmp") / f"dead-{os.getpid()}-{threading.get_ident()}.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    listener.accept()[0].close()

        threading.Thread(target=serve, daemon=True).start()
        yield Circumstance({"INVOKE_PIPELINE_ENGINE": "docker", "DOCKER_HOST": f"unix://{path}"})
    path.unlink()


_NOBODY = (
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
)
_FAKETIME = [Path(f"/usr/lib/{place}faketime/libfaketime.so.1") for place in ("x86_64-linux-gnu/", "")]


def _clock(when: str) -> Plant:
    @contextlib.contextmanager
    def plant(ground: Ground, server: Server) -> Iterator[Circumstance]:
        library = next((path for path in _FAKETIME if path.exists()), None)
        if library is None:
            pytest.skip("libfaketime is not installed")
        variables = (f"LD_PRELOAD={library}", f"FAKETIME={when}", "DONT_FAKE_MONOTONIC=1")
        yield Circumstance(prefix=("env", *variables))

    return plant


EVERY = ("fetch", "recipe", "build", "check", "bundle", "publish")
WRITES = ("recipe", "build", "check", "bundle", "publish")

FAULTS: tuple[Fault, ...] = (
    Fault(
        "a mirror resets", _mirror(lambda d: servers.broken_after(d, len(d) // 3)), ("fetch", "build"), 0, ""
    ),
    Fault(
        "a mirror always resets",
        _mirror(lambda d: servers.rangeless(d, 10)),
        ("fetch",),
        3,
        "small-1.0.tar.gz",
    ),
    Fault("a mirror lies about length", _mirror(lambda d: servers.chatty(d, b"more")), ("fetch",), 0, ""),
    Fault(
        "a mirror announces too much", _mirror(lambda d: servers.good(d + b"x")), ("fetch",), 3, "instead of"
    ),
    Fault(
        "a mirror sends endless data",
        _mirror(lambda _: servers.unannounced(b"x" * 65536, endless=True)),
        ("fetch",),
        3,
        "other bytes",
    ),
    Fault(
        "a mirror redirects in a circle",
        _mirror(lambda _: servers.redirect("/sabotage/small-1.0.tar.gz")),
        ("fetch",),
        3,
        "in a circle",
    ),
    Fault(
        "a mirror serves a page with status 200",
        _mirror(lambda _: servers.status(200)),
        ("fetch",),
        3,
        "text/html",
    ),
    Fault(
        "a mirror serves other bytes", _mirror(lambda d: servers.good(d[::-1])), ("fetch",), 3, "other bytes"
    ),
    Fault("a mirror answers 500", _mirror(lambda _: servers.status(500)), ("fetch",), 3, "HTTP 500"),
    Fault("a mirror is slow", _mirror(lambda d: servers.slow(d, 8192, 0.05)), ("fetch",), 0, ""),
    Fault(
        "a mirror falls silent",
        _mirror(lambda d: servers.stalling(d, 50, 200)),
        ("fetch",),
        3,
        "silent",
        rare=True,
    ),
    Fault("nobody listens at the mirror", _rewritten(_nobody), ("fetch",), 3, "refused"),
    Fault("the mirror's name is unknown", _rewritten(_unknown_name), ("fetch",), 3, "no-such-host"),
    Fault("the mirror's certificate is not trusted", _rewritten(_untrusted), ("fetch",), 3, "certificate"),
    Fault("a source is flipped", _damage(source_entry, _flip), ("build",), 0, "damaged"),
    Fault("a source is truncated", _damage(source_entry, _truncate), ("build",), 0, "damaged"),
    Fault("a source is empty", _damage(source_entry, _empty), ("build",), 0, "damaged", rare=True),
    Fault("a source is a link", _damage(source_entry, _link), ("build",), 0, "not a regular file"),
    Fault("a source is a FIFO", _damage(source_entry, _fifo), ("build",), 0, "not a regular file", rare=True),
    Fault(
        "a package is flipped", _damage(_package, _flip), ("check", "bundle", "publish"), 3, "not the file"
    ),
    Fault(
        "a package is truncated",
        _damage(_package, _truncate),
        ("check", "bundle", "publish"),
        3,
        "not the file",
    ),
    Fault("a package is a link", _damage(_package, _link), ("check", "bundle", "publish"), 3, "not the file"),
    Fault(
        "a build's record is garbage",
        _damage(_build_record, _garbage),
        ("check", "bundle", "publish"),
        3,
        "damaged",
    ),
    Fault(
        "the store's disk is full", _small_disk("store", 100), ("fetch",), 3, "No space left", root_only=True
    ),
    Fault("the store's disk fills up", _small_disk("store", 500), ("build",), 3, "", root_only=True),
    Fault(
        "the artifacts' disk is full",
        _small_disk("artifacts", 4),
        ("build",),
        3,
        "No space left",
        root_only=True,
        rare=True,
    ),
    *(
        Fault(
            f"the store's disk has {kib} KiB left",
            _small_disk("store", kib),
            ("build", "check"),
            -1,
            "",
            True,
            True,
        )
        for kib in (20, 60, 120, 200, 260, 330, 400, 600, 800, 1300, 2500)
    ),
    *(
        Fault(
            f"the artifacts' disk has {kib} KiB left",
            _small_disk("artifacts", kib),
            WRITES,
            -1,
            "",
            True,
            True,
        )
        for kib in (8, 16, 24, 32, 48, 64, 100, 200)
    ),
    Fault("the store is read-only", _read_only("store"), ("fetch", "build"), 3, "Read-only", root_only=True),
    Fault("artifacts are read-only", _read_only("artifacts"), WRITES, 3, "Read-only", root_only=True),
    Fault("a user without rights", _run_as(*_NOBODY), EVERY, 3, "ermission denied", root_only=True),
    Fault(
        "a full process table",
        _run_as(
            "prlimit",
            "--nproc=1:1",
            "setpriv",
            "--reuid=64999",
            "--regid=64999",
            "--clear-groups",
            "--inh-caps=+dac_override,+fowner",
            "--ambient-caps=+dac_override,+fowner",
        ),
        ("fetch", "build"),
        3,
        "",
        root_only=True,
    ),
    Fault("too few open files", _run_as("prlimit", "--nofile=5:5"), EVERY, 3, ""),
    Fault("too little memory", _run_as("prlimit", "--as=60000000"), ("fetch", "build"), 3, "", rare=True),
    Fault("an engine that hangs up", _dead_engine, ("build", "check"), 3, "docker engine failed"),
    Fault("the clock is in 1980", _clock("1980-01-01 00:00:00"), ("fetch", "build", "check"), 0, ""),
    Fault("the clock is in 2100", _clock("2100-01-01 00:00:00"), ("fetch", "build", "publish"), 0, ""),
    Fault(
        "another language, no home", _run_as("env", "-u", "HOME", "LC_ALL=tlh_QO", "LANG=xx"), EVERY, 0, ""
    ),
)
