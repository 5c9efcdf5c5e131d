"""Downloads of unknown size: whole, resumed, bounded, or refused in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.download import AbsentError, download
from pipeline.transport import Limits
from tests import servers
from tests.servers import Server

LIMITS = Limits(connect=1, read=2, rounds=2, backoff=0.01)
DATA = bytes(range(256)) * 5000


@pytest.fixture
def server() -> Iterator[Server]:
    with servers.serving() as serving:
        yield serving


def get(url: str, tmp_path: Path, limit: int = 1 << 30) -> bytes:
    return download(url, tmp_path / "file", limit, LIMITS).read_bytes()


def test_a_whole_file_comes(server: Server, tmp_path: Path) -> None:
    """Or nothing could be received by URL."""
    assert get(server.add("/a", servers.good(DATA)), tmp_path) == DATA
    (tmp_path / "local").write_bytes(DATA)
    assert get((tmp_path / "local").as_uri(), tmp_path) == DATA


def test_a_broken_connection_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    """A bundle of gigabytes must not begin anew."""
    url = server.add("/a", servers.broken_after(DATA, 500_000), servers.good(DATA))
    assert get(url, tmp_path) == DATA
    assert [request.range for request in server.requests] == [None, "bytes=500000-"]


def test_a_server_without_ranges_begins_anew(server: Server, tmp_path: Path) -> None:
    """Two halves of different files must not become one."""
    url = server.add("/a", servers.broken_after(DATA, 500_000), servers.rangeless(DATA))
    assert get(url, tmp_path) == DATA


@pytest.mark.parametrize(
    ("behaviour", "problem"),
    [
        (servers.status(404), "HTTP 404"),
        (servers.status(500), "HTTP 500"),
        (servers.unannounced(b"x", endless=True), r"sends more than 4\.0 MiB"),
        (servers.redirect("/a"), "redirects in a circle"),
        (servers.stalling(DATA, 0, 5), "silent for 2 s"),
        (servers.mute(5), "silent for 2 s"),
        (servers.dripping(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"), "sent no whole headers within 2 s"),
        (servers.dripping(b"", b"H"), "sent no whole headers within 2 s"),
        (servers.dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "sent no whole headers within 2 s"),
        (servers.status(200, {"content-length": "1"}), "multiple unmatching values"),
    ],
)
def test_what_does_not_come_is_a_sentence(
    server: Server, tmp_path: Path, behaviour: servers.Behaviour, problem: str
) -> None:
    """Neither an endless file on the disk nor a traceback."""
    url = server.add("/a", behaviour)
    with pytest.raises(AbsentError, match=problem):
        get(url, tmp_path, 4 << 20)
    assert not (tmp_path / "file").exists()
