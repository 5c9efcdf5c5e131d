"""A real HTTP server on loopback that can misbehave in the ways that mirrors do."""

from __future__ import annotations

import contextlib
import gzip
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Request:
    """What a client asked for: path, and the headers that matter (None where it did not send them)."""

    path: str
    range: str | None
    encoding: str | None


class Handler(BaseHTTPRequestHandler):
    """Gives each request to the behaviour that its path is set up with; unknown paths are 404."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self.close_connection = False
        owner = self.server.owner
        owner.requests.append(Request(self.path, self.headers["Range"], self.headers["Accept-Encoding"]))
        behaviour = owner.routes.get(self.path, status(404))
        with contextlib.suppress(ConnectionError, TimeoutError):
            behaviour(self)

    def begin(self, code: int, headers: dict[str, str]) -> None:
        """Send status line and headers."""
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def offset(self) -> int:
        """Return where the range that was asked for begins; 0 without one."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        return int(match[1]) if match else 0

    def log_message(self, format: str, *args: object) -> None:
        """Keep standard error for the code under test."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    owner: Server

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are part of the tests."""


Behaviour = Callable[[Handler], None]


@dataclass
class Server:
    """What the server does for each path, and what it was asked for."""

    root: str
    routes: dict[str, Behaviour] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def add(self, path: str, *behaviours: Behaviour) -> str:
        """Set a path up with a behaviour for each request, the last one for all further; return the URL."""
        left = list(behaviours)
        lock = threading.Lock()

        def next_one(handler: Handler) -> None:
            with lock:
                behaviour = left.pop(0) if len(left) > 1 else left[0]
            behaviour(handler)

        self.routes[path] = next_one
        return self.root + path


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Run a server on a free port of 127.0.0.1."""
    httpd = _Server(("127.0.0.1", 0), Handler)
    httpd.owner = Server(f"http://127.0.0.1:{httpd.server_address[1]}")
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield httpd.owner
    finally:
        httpd.shutdown()
        httpd.server_close()


def good(data: bytes) -> Behaviour:
    """Serve a file as it should be, with ranges; 416 behind its end."""
    return broken_after(data, len(data))


def broken_after(data: bytes, count: int) -> Behaviour:
    """Serve a file with ranges, but drop the connection after that many bytes of the body."""

    def behave(handler: Handler) -> None:
        start = handler.offset()
        if start and start >= len(data):
            status(416)(handler)
            return
        headers = {"Content-Length": str(len(data) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        handler.begin(206 if start else 200, headers)
        handler.wfile.write(data[start : start + count])
        handler.close_connection = count < len(data) - start

    return behave


def rangeless(data: bytes, count: int | None = None) -> Behaviour:
    """Serve a file from its start whatever was asked for; drop the connection after ``count`` bytes."""

    def behave(handler: Handler) -> None:
        handler.begin(200, {"Content-Length": str(len(data))})
        handler.wfile.write(data[:count])
        handler.close_connection = count is not None

    return behave


def wrong_range(data: bytes, content_range: str) -> Behaviour:
    """Answer a range with 206, a wrong Content-Range (none where empty) and no body; a whole file right."""

    def behave(handler: Handler) -> None:
        if not handler.offset():
            good(data)(handler)
            return
        headers = {"Content-Length": str(len(data))}
        handler.begin(206, headers | ({"Content-Range": content_range} if content_range else {}))
        time.sleep(1)  # a client that waits for the body has not looked at the header
        handler.close_connection = True

    return behave


def status(code: int, headers: dict[str, str] | None = None) -> Behaviour:
    """Answer with a status and a short page."""

    def behave(handler: Handler) -> None:
        page = b"<html>a page</html>"
        handler.begin(code, {"Content-Type": "text/html", "Content-Length": str(len(page))} | (headers or {}))
        handler.wfile.write(page)

    return behave


def redirect(target: str) -> Behaviour:
    """Send the client elsewhere."""
    return status(302, {"Location": target})


def unannounced(data: bytes, *, endless: bool = False) -> Behaviour:
    """Serve bytes without a Content-Length, up to the end of the connection; or again and again."""

    def behave(handler: Handler) -> None:
        handler.begin(200, {"Connection": "close"})
        handler.close_connection = True
        handler.wfile.write(data)
        while endless:
            handler.wfile.write(data)

    return behave


def chatty(data: bytes, extra: bytes) -> Behaviour:
    """Announce a file's length, and send more than that."""

    def behave(handler: Handler) -> None:
        handler.begin(200, {"Content-Length": str(len(data))})
        handler.wfile.write(data + extra)
        handler.close_connection = True

    return behave


def stalling(data: bytes, count: int, seconds: float) -> Behaviour:
    """Send that many bytes and then nothing for a time."""

    def behave(handler: Handler) -> None:
        handler.begin(200, {"Content-Length": str(len(data))})
        handler.wfile.write(data[:count])
        handler.wfile.flush()
        time.sleep(seconds)
        handler.close_connection = True

    return behave


def slow(data: bytes, block: int, pause: float) -> Behaviour:
    """Serve a file with ranges, in blocks with pauses of seconds between them."""

    def behave(handler: Handler) -> None:
        start = handler.offset()
        headers = {"Content-Length": str(len(data) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        handler.begin(206 if start else 200, headers)
        for at in range(start, len(data), block):
            handler.wfile.write(data[at : at + block])
            handler.wfile.flush()
            time.sleep(pause)

    return behave


def labelled_gzip(data: bytes) -> Behaviour:
    """Serve a .gz file as it is, but labelled as if the server had compressed it on its way."""

    def behave(handler: Handler) -> None:
        handler.begin(200, {"Content-Length": str(len(data)), "Content-Encoding": "gzip"})
        handler.wfile.write(data)

    return behave


def compressing(data: bytes) -> Behaviour:
    """Compress on the way, unless the client says that it wants the identity only."""

    def behave(handler: Handler) -> None:
        if handler.headers["Accept-Encoding"] == "identity":
            good(data)(handler)
        else:
            labelled_gzip(gzip.compress(data))(handler)

    return behave


def dripping(first: bytes, again: bytes) -> Behaviour:
    """Begin an answer in a way of its own, and go on with the same bytes a few times a second, for ever."""

    def behave(handler: Handler) -> None:
        handler.close_connection = True
        handler.wfile.write(first)
        while True:
            handler.wfile.write(again)
            time.sleep(0.2)

    return behave


def mute(seconds: float) -> Behaviour:
    """Take a request and say nothing at all for a time."""

    def behave(handler: Handler) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return behave
