"""Downloads from servers that behave and that do not, over real sockets on loopback."""

from __future__ import annotations

import email.utils
import gzip
import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.errors import IntegrityError, UsageError
from pipeline.fetch import DownloadError, fetch
from pipeline.mirrors import Mirrors
from pipeline.source import Source
from pipeline.store import Store, StoreError
from pipeline.transport import Limits, retry_after
from tests import servers
from tests.servers import Behaviour, Server
from tests.test_store import damage

ROOT = Path(__file__).parent.parent
DATA = random.Random(1).randbytes(700_001)
QUICK = Limits(connect=2, read=0.4, rounds=3, backoff=0.02, retry_after=0.3)
MIRRORS = Mirrors(apt=lambda: ())


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[Server]:
    with servers.serving() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def pinned(*urls: str, data: bytes = DATA, name: str = "thing.tar") -> Source:
    return Source(name=name, urls=urls, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def partial(store: Store, source: Source, data: bytes) -> None:
    """Leave what an earlier run left behind."""
    with store.resume(source.sha256) as writer:
        writer.write(data)


def part(store: Store, source: Source) -> Path:
    return store.root / "tmp" / f"{source.sha256}.part"


def get(store: Store, *sources: Source, offline: bool = False, mirrors: Mirrors = MIRRORS) -> list[bytes]:
    paths = fetch(sources, store, mirrors, offline=offline, limits=QUICK)
    return [paths[source.sha256].read_bytes() for source in sources]


def refused(store: Store, source: Source) -> str:
    with pytest.raises(DownloadError) as caught:
        get(store, source)
    assert store.find(source.sha256) is None
    return caught.value.message


def test_files_arrive_and_are_not_fetched_twice(store: Store, server: Server) -> None:
    """Otherwise nothing can be built, or every build downloads everything again."""
    other = b"other" * 100
    sources = [
        pinned(server.add("/a+b~1.tar", servers.good(DATA))),
        pinned(server.add("/b", servers.good(other)), data=other, name="b"),
    ]
    for _ in range(2):
        assert get(store, *sources) == [DATA, other]
    assert sorted(request.path for request in server.requests) == ["/a+b~1.tar", "/b"]
    assert list((store.root / "tmp").iterdir()) == []


def test_nothing_to_fetch_is_fine(store: Store) -> None:
    """Otherwise a release without sources breaks."""
    assert fetch([], store, MIRRORS) == {}


def test_sources_that_are_one_file_are_fetched_once(store: Store, server: Server) -> None:
    """Otherwise two images with the same package download it twice, and one of two URL lists is lost."""
    first = pinned(server.add("/gone", servers.status(404)), name="first")
    second = pinned(server.add("/b", servers.good(DATA)), name="second")
    assert get(store, first, second) == [DATA, DATA]
    assert [request.path for request in server.requests] == ["/gone", "/b"]


def test_what_failed_is_not_counted_as_fetched(
    store: Store, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    """Otherwise a log says that all is well above the error that says what is missing."""
    refused(store, pinned(server.add("/gone", servers.status(404))))
    assert "0 of 1 files fetched (0 B)" in capfd.readouterr().err


def test_contradicting_sizes_are_refused(store: Store) -> None:
    """Otherwise one of two wrong definitions is taken at random."""
    one = pinned("http://127.0.0.1:9/x", name="one")
    two = Source(name="two", urls=one.urls, size=one.size + 1, sha256=one.sha256)
    with pytest.raises(UsageError, match="one and two"):
        get(store, one, two)


WRONG = bytes(len(DATA))
FAULTS: dict[str, tuple[Behaviour, str]] = {
    "not found": (servers.status(404), "HTTP 404"),
    "forbidden": (servers.status(403), "HTTP 403"),
    "a page instead of the file": (servers.status(200), "announces 19 bytes (text/html)"),
    "a page of unknown length": (servers.unannounced(b"<html>"), "ended after 6 of 700001 bytes"),
    "other bytes": (servers.good(WRONG), "sends other bytes, with the SHA-256 "),
    "a longer file": (servers.good(DATA + b"x"), "announces 700002 bytes"),
    "a length of 5000 digits": (servers.status(200, {"Content-Length": "9" * 5000}), "announces 99999"),
    "a shorter file": (servers.good(DATA[:-1]), "announces 700000 bytes"),
    "endless bytes": (servers.unannounced(WRONG, endless=True), "sends other bytes"),
    "always broken off": (servers.rangeless(DATA, 1000), "the connection ended too early"),
    "overloaded": (servers.status(503), "HTTP 503"),
    "silent": (servers.stalling(DATA, 100, 3), "silent for 0.4 s"),
    "a circle": (servers.redirect("/fault"), "redirects in a circle"),
    "a long chain": (servers.redirect("/chain/1"), "redirects more than 5 times"),
    "to a file": (servers.redirect("file:///etc/passwd"), "No connection adapters"),
    "to nonsense": (servers.redirect("http://[x/"), "no URL"),
    "packed": (servers.labelled_gzip(gzip.compress(DATA)), "bytes (no type) instead of"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_url_is_explained_and_the_next_one_used(store: Store, server: Server, fault: str) -> None:
    """Otherwise one bad mirror stops the work, or gets its bytes into the package."""
    behaviour, reason = FAULTS[fault]
    for number in range(1, 10):
        server.add(f"/chain/{number}", servers.redirect(f"/chain/{number + 1}"))
    bad = server.add("/fault", behaviour)
    message = refused(store, pinned(bad))
    assert bad in message
    assert reason in message
    assert get(store, pinned(bad, server.add("/good", servers.good(DATA)))) == [DATA]


RECOVERIES: dict[str, tuple[list[Behaviour], int]] = {
    "503, then fine": ([servers.status(503), servers.good(DATA)], 2),
    "429 with Retry-After": ([servers.status(429, {"Retry-After": "1"}), servers.good(DATA)], 2),
    "broken off, then continued": ([servers.broken_after(DATA, 300_000), servers.good(DATA)], 2),
    "broken off often": ([servers.broken_after(DATA, 70_000)], 11),
    "broken off, then no ranges": ([servers.rangeless(DATA, 300_000), servers.rangeless(DATA)], 2),
    "silent, then fine": ([servers.stalling(DATA, 300_000, 2), servers.good(DATA)], 2),
    "a redirect": ([servers.redirect("/elsewhere")], 2),
    "more than announced": ([servers.chatty(DATA, b"more")], 1),
    "no length": ([servers.unannounced(DATA)], 1),
    "endless after the right bytes": ([servers.unannounced(DATA, endless=True)], 1),
    "compressing unless told not to": ([servers.compressing(DATA)], 1),
}


@pytest.mark.parametrize("case", RECOVERIES)
def test_one_url_is_enough_where_its_trouble_passes(store: Store, server: Server, case: str) -> None:
    """Otherwise a hiccup of the network costs the whole run."""
    behaviours, requests = RECOVERIES[case]
    server.add("/elsewhere", servers.good(DATA))
    assert get(store, pinned(server.add("/x", *behaviours))) == [DATA]
    assert len(server.requests) == requests


def test_a_gzip_file_is_kept_as_it_is(store: Store, server: Server) -> None:
    """Otherwise .tar.gz sources come unpacked from servers that label them so, and never match."""
    packed = gzip.compress(DATA)
    assert get(store, pinned(server.add("/x.gz", servers.labelled_gzip(packed)), data=packed)) == [packed]
    assert server.requests[0].encoding == "identity"


def test_a_partial_file_is_continued(store: Store, server: Server) -> None:
    """Otherwise whoever presses Ctrl-C starts a big download again from nothing."""
    source = pinned(server.add("/x", servers.good(DATA)))
    partial(store, source, DATA[:400_000])
    assert get(store, source) == [DATA]
    assert [request.range for request in server.requests] == ["bytes=400000-"]


def test_a_complete_partial_file_needs_no_server(store: Store) -> None:
    """Otherwise a run that was killed just before its last step downloads all again."""
    source = pinned("http://127.0.0.1:9/x")
    partial(store, source, DATA)
    assert get(store, source) == [DATA]


PARTIALS: dict[str, tuple[bytes, Behaviour, list[str | None]]] = {
    "foreign bytes": (WRONG[:400_000], servers.good(DATA), ["bytes=400000-", None]),
    "as long as the file": (WRONG, servers.good(DATA), [None]),
    "too long": (DATA + b"x", servers.good(DATA), [None]),
    "server without ranges": (DATA[:400_000], servers.rangeless(DATA), ["bytes=400000-"]),
    "another range": (
        DATA[:400_000],
        servers.wrong_range(DATA, f"bytes 5-700000/{len(DATA)}"),
        ["bytes=400000-", None],
    ),
    "no range named": (DATA[:400_000], servers.wrong_range(DATA, ""), ["bytes=400000-", None]),
    "nonsense range": (DATA[:9], servers.wrong_range(DATA, "bytes x-y/z"), ["bytes=9-", None]),
}


@pytest.mark.parametrize("case", PARTIALS)
def test_a_partial_file_that_does_not_fit_is_started_afresh(store: Store, server: Server, case: str) -> None:
    """Otherwise a damaged partial file makes every later run fail until somebody finds and removes it."""
    left, behaviour, ranges = PARTIALS[case]
    source = pinned(server.add("/x", behaviour))
    partial(store, source, left)
    assert get(store, source) == [DATA]
    assert [request.range for request in server.requests] == ranges


def test_416_starts_afresh(store: Store, server: Server) -> None:
    """Otherwise a mirror that once had a longer file under the name blocks the right one."""
    source = pinned(server.add("/x", servers.status(416), servers.good(DATA)))
    partial(store, source, DATA[:400_000])
    assert get(store, source) == [DATA]
    assert [request.range for request in server.requests] == ["bytes=400000-", None]


def test_a_refused_mirror_keeps_the_partial_file_for_the_next(store: Store, server: Server) -> None:
    """Otherwise a dead mirror in front throws away what was downloaded already."""
    source = pinned(server.add("/page", servers.status(200)), server.add("/x", servers.good(DATA)))
    partial(store, source, DATA[:400_000])
    assert get(store, source) == [DATA]
    assert server.requests[-1].range == "bytes=400000-"


def test_wrong_bytes_leave_no_partial_file(store: Store, server: Server) -> None:
    """Otherwise a hostile server poisons later runs."""
    source = pinned(server.add("/x", servers.good(WRONG)))
    refused(store, source)
    assert not part(store, source).exists()


def test_a_dead_port_is_explained_and_others_are_tried(store: Store, server: Server) -> None:
    """Otherwise a mirror that is down for an hour stops the work."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dead = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
    assert "Connection refused" in refused(store, pinned(dead))
    assert get(store, pinned(dead, server.add("/x", servers.good(DATA)))) == [DATA]


def test_a_dead_host_is_asked_last_after_its_first_failure(store: Store, server: Server) -> None:
    """Otherwise each of hundreds of files waits for the same dead mirror's time-out."""
    with servers.serving() as dead:
        sources = []
        for number in range(5):
            data = DATA + bytes([number])
            good = server.add(f"/{number}", servers.good(data))
            sources.append(
                pinned(
                    dead.add(f"/{number}", servers.stalling(data, 0, 3)), good, data=data, name=str(number)
                )
            )
        fetch(sources, store, MIRRORS, jobs=1, limits=QUICK)
        assert len(dead.requests) == 1


def test_retry_after_is_bounded(store: Store, server: Server) -> None:
    """Otherwise a server may send the builder to sleep for a year."""
    url = server.add("/x", servers.status(429, {"Retry-After": "31536000"}), servers.good(DATA))
    start = time.monotonic()
    assert get(store, pinned(url)) == [DATA]
    assert 0.3 <= time.monotonic() - start < 2


def test_retry_after_understands_seconds_dates_and_nonsense() -> None:
    """Otherwise a strange header ends in a traceback."""
    assert retry_after("7") == 7
    soon = email.utils.formatdate(time.time() + 60, usegmt=True)
    assert 55 < retry_after(soon) <= 60
    past = email.utils.formatdate(time.time() - 60, usegmt=True)
    for value in (None, "", past, "soon", "-5", "1e9", "\u0663", "Wed, 99 Foo 9999"):
        assert retry_after(value) == 0


def test_a_trickle_is_not_waited_for(store: Store, server: Server) -> None:
    """Otherwise a server that sends a byte now and then holds up a nightly build for days."""
    message = refused(store, pinned(server.add("/x", servers.slow(DATA, 1, 0.1))))
    assert "less than 256 bytes a second" in message


def test_all_failures_are_told_at_once(store: Store, server: Server) -> None:
    """Otherwise users repair one source a run; and the good ones are thrown away."""
    good = pinned(server.add("/good", servers.good(DATA)), name="good.tar")
    one = pinned(server.add("/one", servers.status(404)), "debian:pool/one", data=b"one", name="one.tar")
    two = pinned(server.root.replace("//", "//me:secret@") + "/two", data=b"two!", name="two.tar")
    with pytest.raises(DownloadError) as caught:
        get(store, one, good, two)
    assert store.find(good.sha256)
    message = caught.value.message
    assert message.startswith("2 of 3 files")
    for words in (
        f"one.tar (3 bytes, SHA-256 {one.sha256})",
        f"two.tar (4 bytes, SHA-256 {two.sha256})",
        f"{server.root}/one: HTTP 404 Not Found",
        f"{server.root}/two: HTTP 404 Not Found",
        "mirrors.debian",
    ):
        assert words in message
    assert "secret" not in message
    assert [entry.source.name for entry in caught.value.missing] == ["one.tar", "two.tar"]


@pytest.mark.parametrize("change", ["flipped", "truncated", "symlink"])
def test_a_damaged_entry_is_named_and_fetched_again(
    store: Store, server: Server, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise a flipped bit on disk gets into every later build."""
    source = pinned(server.add("/x", servers.good(DATA)))
    get(store, source)
    damage(store.path(source.sha256), change)
    assert get(store, source) == [DATA]
    assert len(server.requests) == 2
    assert "thing.tar was damaged" in capsys.readouterr().err


def test_offline_uses_the_store_and_says_what_it_lacks(store: Store, server: Server) -> None:
    """Otherwise a build without network tries to use it, or fails without saying what to fetch."""
    here = pinned(server.add("/here", servers.good(DATA)))
    get(store, here)
    assert get(store, here, offline=True) == [DATA]
    there = pinned(server.add("/there", servers.good(b"there")), data=b"there", name="there.tar")
    with pytest.raises(DownloadError, match=r"there\.tar") as caught:
        get(store, here, there, offline=True)
    assert "network is off" in caught.value.message
    assert len(server.requests) == 1
    damage(store.path(here.sha256), "flipped")
    with pytest.raises(IntegrityError, match=r"thing\.tar"):
        get(store, here, offline=True)


def test_a_folder_can_be_a_mirror_offline_too(store: Store, tmp_path: Path) -> None:
    """Otherwise hosts without network cannot be served from a disk."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "x+y").write_bytes(DATA)
    source = pinned("http://a.example/x+y")
    mirrors = Mirrors({"http://a.example/": (folder.as_uri(),)}, apt=lambda: ())
    partial(store, source, DATA[:1000])
    assert get(store, source, mirrors=mirrors, offline=True) == [DATA]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "not a regular file"),
        (lambda path: os.mkfifo(path), "not a regular file"),
        (lambda path: path.write_bytes(DATA[:5]), "has 5 bytes instead of 700001"),
        (lambda path: path.write_bytes(WRONG), "other bytes"),
    ],
)
def test_a_wrong_file_in_a_folder_mirror_is_explained(
    store: Store, tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    """Otherwise a FIFO hangs the pipeline, or an old file is taken for the new one."""
    make(tmp_path / "x")
    mirrors = Mirrors({"http://127.0.0.1:9/": (tmp_path.as_uri(),)}, apt=lambda: ())
    with pytest.raises(DownloadError) as caught:
        get(store, pinned("http://127.0.0.1:9/x"), mirrors=mirrors)
    assert reason in caught.value.message


def test_a_store_that_cannot_be_written_stops_at_once(server: Server, tmp_path: Path) -> None:
    """Otherwise a full disk is reported as many dead mirrors. Here: a file where the folder should be."""
    (tmp_path / "store").write_text("")
    url = server.add("/x", servers.good(DATA))
    with pytest.raises(StoreError, match=r"The store in .* cannot be used"):
        get(Store(tmp_path / "store"), pinned(url))


def test_bars_and_lines_draw(store: Store, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise a terminal's user gets a traceback instead of bars, or a log gets bars."""
    url = server.add("/x", servers.slow(DATA, 100_000, 0.1))
    fetch([pinned(url)], store, MIRRORS, progress=True)
    drawn = capsys.readouterr().err
    assert "thing.tar" in drawn
    assert "total" in drawn
    store.path(pinned(url).sha256).unlink()
    fetch([pinned(url)], store, MIRRORS, progress=False)
    assert capsys.readouterr().err.startswith("fetched thing.tar (683.6 KiB) in 0.")


PROGRAM = """
import sys
from pathlib import Path
from pipeline.fetch import fetch
from pipeline.mirrors import Mirrors
from pipeline.source import Source
from pipeline.store import Store
_, root, url, size, sha256 = sys.argv
source = Source(name="thing.tar", urls=(url,), size=int(size), sha256=sha256)
try:
    print(fetch([source], Store(Path(root)), Mirrors())[sha256])
except KeyboardInterrupt:
    sys.exit(130)
"""


def start(store: Store, source: Source) -> subprocess.Popen[str]:
    argv = [
        sys.executable, "-c", PROGRAM, str(store.root), source.urls[0], str(source.size), source.sha256,
    ]  # fmt: skip
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_part(store: Store, source: Source, size: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if part(store, source).exists() and part(store, source).stat().st_size >= size:
            return
        time.sleep(0.01)
    raise AssertionError("nothing was downloaded")


@pytest.mark.parametrize(
    ("end", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)], ids=["kill -9", "Ctrl-C"]
)
def test_a_stopped_process_is_resumed_by_the_next(
    store: Store, server: Server, end: signal.Signals, status: int
) -> None:
    """Otherwise a power cut or Ctrl-C costs the download, or leaves something that passes for it."""
    source = pinned(server.add("/x", servers.slow(DATA, 20_000, 0.2), servers.good(DATA)))
    with start(store, source) as process:
        wait_for_part(store, source, 40_000)
        began = time.monotonic()
        process.send_signal(end)
        assert process.wait(10) == status
        assert time.monotonic() - began < 1.5
    assert store.find(source.sha256) is None
    kept = part(store, source).stat().st_size
    assert get(store, source) == [DATA]
    assert [request.range for request in server.requests] == [None, f"bytes={kept}-"]


def test_ctrl_c_does_not_wait_for_a_silent_server(store: Store, server: Server) -> None:
    """Otherwise Ctrl-C takes as long as the read time-out, half a minute."""
    source = pinned(server.add("/x", servers.stalling(DATA, 1000, 60)))
    with start(store, source) as process:
        wait_for_part(store, source, 1000)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert time.monotonic() - began < 1.5
    assert part(store, source).stat().st_size == 1000


def test_two_processes_fetching_one_file_share_one_download(store: Store, server: Server) -> None:
    """Otherwise two builds at once corrupt each other's files. Real processes, a slow server."""
    source = pinned(server.add("/x", servers.slow(DATA, 100_000, 0.15)))
    with start(store, source) as one, start(store, source) as two:
        outputs = [process.communicate(timeout=30) for process in (one, two)]
    assert [process.returncode for process in (one, two)] == [0, 0]
    assert {out.strip() for out, _ in outputs} == {str(store.path(source.sha256))}
    assert store.get(source)
    assert len(server.requests) == 1
    assert sum("waiting for another process" in err for _, err in outputs) == 1


def test_many_files_are_fetched_at_once(store: Store, server: Server) -> None:
    """Otherwise the hundreds of packages of an image are fetched one by one."""
    blobs = [random.Random(number).randbytes(1000) for number in range(40)]
    sources = [
        pinned(server.add(f"/{number}", servers.slow(data, 500, 0.05)), data=data, name=str(number))
        for number, data in enumerate(blobs)
    ]
    began = time.monotonic()
    assert fetch(sources, store, MIRRORS, jobs=10).keys() == {source.sha256 for source in sources}
    assert time.monotonic() - began < 40 * 0.1 / 2
