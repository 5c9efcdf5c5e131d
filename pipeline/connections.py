"""HTTP connections whose headers have to come in time, which neither requests nor urllib3 sees to.

Their timeouts are those of each read, and a server that sends a byte every few seconds has many.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import requests
import urllib3
import urllib3.connection


class SlowAnswerError(TimeoutError):
    """A server sent its status line and headers, or what comes before them, byte by byte."""


class _Watched(urllib3.connection.HTTPConnection):
    """A connection whose headers have to come in time: its own timeout is that of each of many reads."""

    limit: ClassVar[float]

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        """Return the answer, with its headers. Raises SlowAnswerError."""
        with self._in_time():
            return super().getresponse()

    def _tunnel(self) -> None:
        """Have a proxy connect this with the server."""
        with self._in_time():
            super()._tunnel()

    @contextlib.contextmanager
    def _in_time(self) -> Iterator[None]:
        late = threading.Event()
        connected = self.sock

        def end() -> None:
            late.set()
            with contextlib.suppress(OSError):
                # Not TLS's own, which takes its state away from whoever is reading.
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

        # A little longer than one read may take: a server that says nothing at all is silent, and not slow.
        watchdog = threading.Timer(self.limit + 1, end)
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        except Exception:
            if not late.is_set():
                raise
        finally:
            watchdog.cancel()
        # http.client takes the end of a connection for the end of its headers.
        if late.is_set():
            raise SlowAnswerError


class WatchingAdapter(requests.adapters.HTTPAdapter):
    """Makes connections that are watched; ``limit`` is the seconds that one read may take."""

    def __init__(self, limit: float, connections: int) -> None:
        self._limit = limit
        super().__init__(pool_maxsize=connections)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools, of which each scheme has its class."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools()

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Make a proxy's pools."""
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self._pools()
        return manager

    def _pools(self) -> dict[str, type[urllib3.HTTPConnectionPool]]:
        own = {"limit": self._limit}
        http_class = type("Http", (_Watched,), own)
        https_class = type("Https", (_Watched, urllib3.connection.HTTPSConnection), own)
        return {
            "http": type("HttpPool", (urllib3.HTTPConnectionPool,), {"ConnectionCls": http_class}),
            "https": type("HttpsPool", (urllib3.HTTPSConnectionPool,), {"ConnectionCls": https_class}),
        }
