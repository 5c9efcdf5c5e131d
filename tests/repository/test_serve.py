"""The real pacman as the client of `inv serve`."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web

from pipeline.errors import HostError, UsageError
from pipeline.repository import serve as serving
from pipeline.repository.channel import Channel, Place
from pipeline.repository.publish import Policy, offers, publish
from tests import builds, keys
from tests.keys import Key
from tests.repository.clients import Client

pytestmark = pytest.mark.integration
CONF = "etc/small.conf"


@contextlib.contextmanager
def running(root: Path) -> Iterator[str]:
    """Serve a folder of channels in this process, and give the address."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(serving.application(root))
    loop.run_until_complete(runner.setup())
    site = web.TCPSite(runner, "127.0.0.1", 0)
    loop.run_until_complete(site.start())
    port = runner.addresses[0][1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(runner.cleanup())
        loop.close()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "repo", Channel.STABLE)


@pytest.fixture(scope="module")
def key() -> Iterator[Key]:
    with keys.some() as some:
        yield some["mine"]


@pytest.fixture(scope="module")
def trusting(key: Key, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A keyring folder of a client that trusts the key; pacman-key takes seconds to make one."""
    client = Client(Path(tmp_path_factory.mktemp("trusting")))
    client.configure("")
    client.trust(key)
    return client.root / "gnupg"


def put(place: Place, folder: Path, version: str, policy: Policy, conf: bytes = b"answer=42\n") -> None:
    build = builds.make(folder, version=version, contents={CONF: conf, "usr/small": version.encode()})
    hashes = {path: build.hashes[path.name] for path in build.packages}
    publish(place, offers(hashes, build.folder, unproven=False), policy)


def get(url: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {})) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as e:
        return e.code, b""


def test_pacman_installs_and_upgrades_from_it(place: Place, tmp_path: Path) -> None:
    put(place, tmp_path / "1", "1-1", Policy())
    with running(place.root) as url:
        client = Client(tmp_path / "client")
        client.configure(serving.lines(place, url))
        client.fine("-Sy", "small")
        assert (client.root / "usr/small").read_bytes() == b"1-1"
        put(place, tmp_path / "2", "2-1", Policy())
        client.fine("-Syu")
        assert client.fine("-Q").splitlines() == ["small 2-1"]
        client.fine("-Fy")
        assert "xen-stable/small 2-1" in client.fine("-F", "usr/small")


def test_a_client_that_wants_signatures_gets_them_and_damage_is_refused(
    place: Place, tmp_path: Path, key: Key, trusting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNUPGHOME", str(key.home))
    put(place, tmp_path / "1", "1-1", Policy(key.fingerprint))
    with running(place.root) as url:
        lines = serving.lines(place, url)
        assert "SigLevel = Required DatabaseRequired" in lines
        client = Client(tmp_path / "client")
        client.configure(lines)
        # Without the key, nothing is taken.
        assert client.pacman("-Sy").returncode != 0
        shutil.rmtree(client.root / "gnupg")
        (client.root / "gnupg").symlink_to(trusting)
        client.fine("-Syy")
        package = place.folder / "small-1-1-any.pkg.tar.xz"
        good = package.read_bytes()
        package.write_bytes(good[:-40] + bytes([good[-40] ^ 1]) + good[-39:])
        said = client.pacman("-S", "small")
        assert said.returncode != 0
        assert "corrupted" in said.stdout + said.stderr
        package.write_bytes(good)
        client.fine("-S", "small")
        database = (place.folder / "xen-stable.db").resolve()
        good = database.read_bytes()
        database.write_bytes(good[:-40] + bytes([good[-40] ^ 1]) + good[-39:])
        assert client.pacman("-Syy").returncode != 0
        database.write_bytes(good)
        client.fine("-Syy")


def test_a_client_never_fails_while_others_publish(
    place: Place, tmp_path: Path, key: Key, trusting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """50 generations come and go; a client that wants signatures asks without a pause."""
    monkeypatch.setenv("GNUPGHOME", str(key.home))
    policy = Policy(key.fingerprint, keep=1, grace=timedelta(seconds=20))
    put(place, tmp_path / "0", "0-1", policy)
    client = Client(tmp_path / "client")
    ended = threading.Event()
    failures, count = [], 0
    with running(place.root) as url:
        client.configure(serving.lines(place, url))
        shutil.rmtree(client.root / "gnupg")
        (client.root / "gnupg").symlink_to(trusting)

        def loop() -> None:
            nonlocal count
            while not ended.is_set():
                done = client.pacman("-Syyw", "small")
                count += 1
                if done.returncode != 0:
                    failures.append(done.stdout + done.stderr)

        thread = threading.Thread(target=loop)
        thread.start()
        for n in range(1, 51):
            put(place, tmp_path / f"{n}", f"{n}-1", policy)
        ended.set()
        thread.join()
    assert not failures, failures[0]
    assert count > 5


def test_ranges_and_conditions_are_answered(place: Place, tmp_path: Path) -> None:
    put(place, tmp_path / "1", "1-1", Policy())
    name = "small-1-1-any.pkg.tar.xz"
    data = (place.folder / name).read_bytes()
    with running(place.root) as url:
        base = f"{url}/stable/x86_64"
        assert get(f"{base}/{name}", {"Range": "bytes=10-"}) == (206, data[10:])
        assert get(f"{base}/{name}", {"Range": f"bytes={len(data)}-"})[0] == 416
        later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
        assert get(f"{base}/xen-stable.db", {"If-Modified-Since": later})[0] == 304
        assert get(f"{base}/packages.json")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/stable/x86_64/../../../secret",
        "/stable/x86_64/..%2f..%2f..%2fsecret",
        "/stable/x86_64/generations/1/..%2f..%2f..%2f..%2fsecret",
        "/stable/x86_64/link.pkg.tar.xz",
        "/stable/x86_64/current",
        "/stable/.lock",
        "/",
    ],
)
def test_nothing_but_the_repository_is_served(place: Place, tmp_path: Path, path: str) -> None:
    put(place, tmp_path / "1", "1-1", Policy())
    (tmp_path / "secret").write_text("secret")
    (place.folder / "link.pkg.tar.xz").symlink_to(tmp_path / "secret")
    with running(place.root) as url:
        assert get(url + path) in [(404, b""), (403, b"")]


def test_the_command_publishes_and_serves(tmp_path: Path) -> None:
    """A user's way: files with evidence beside them, `inv publish`, `inv serve`, and pacman."""
    from tests.checkouts import PROJECT, Checkout

    env = {"INVOKE_PIPELINE_ARTIFACTS": str(tmp_path / "artifacts"), "INVOKE_PIPELINE_RELEASE": "4.17"}
    checkout = Checkout(PROJECT, tmp_path / "store", env)
    build = builds.make(tmp_path / "build")
    checkout.run("publish", *map(str, build.packages), "--channel", "unstable").fine()
    (build.folder / "evidence" / "smoke.json").unlink()
    refused = checkout.run("publish", *map(str, build.packages), "--channel", "stable")
    refused.failed(1)
    assert "no evidence of smoke" in refused.err
    checkout.run("publish", *map(str, build.packages), "--allow-unproven").fine()
    server = checkout.popen("serve", "--port", "0", prefix=["env", "PYTHONUNBUFFERED=1"])
    try:
        assert server.stdout is not None
        said = ""
        while said.count("Server = ") < 2:
            line = server.stdout.readline()
            assert line, server.stderr and server.stderr.read()
            said += line
        assert "[xen-stable]" in said
        assert "Without passing evidence" in said
        assert "http://127.0.0.1:" in said
        client = Client(tmp_path / "client")
        client.configure(said)
        client.fine("-Sy", "small", "small-docs")
    finally:
        server.send_signal(2)
        assert server.wait(20) == 0
        server.communicate()


def test_where_nothing_is_published_nothing_is_served(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Nothing has been published"):
        serving.serve(tmp_path, "127.0.0.1", 0)


def test_an_address_of_another_machine_is_the_hosts_failure(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot listen"):
        serving.serve(tmp_path, "192.0.2.1", 0)
