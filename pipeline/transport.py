"""One attempt at one URL: HTTP and file URLs opened at an offset, and what can go wrong with that."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import http.cookiejar
import re
import ssl
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urljoin, urlsplit
from urllib.request import url2pathname

import requests
import urllib3

from pipeline.connections import SlowAnswerError, WatchingAdapter
from pipeline.errors import HostError

_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/(?:([0-9]{1,18})|\*)", re.IGNORECASE)
_TRANSIENT = (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
)


class RefusedError(HostError):
    """An attempt failed in a way that another attempt at the same URL would not change."""


class RangeError(RefusedError):
    """A server could not continue where a partial file ends."""


class TransientError(HostError):
    """An attempt failed in a way that may pass.

    ``after`` is how many seconds the server asks to wait. ``unreachable``: there was not even an answer.
    """

    def __init__(self, message: str, *, after: float = 0, unreachable: bool = False) -> None:
        super().__init__(message)
        self.after = after
        self.unreachable = unreachable


@dataclass(frozen=True)
class Limits:
    """How patient a download is. Times are in seconds."""

    connect: float = 10
    """How long making a connection may take."""
    read: float = 30
    """How long a server may be silent."""
    slowest: int = 256
    """How many bytes a second a server must send, measured over ``read`` seconds."""
    rounds: int = 4
    """How many times in succession, without progress, all URLs of a file are tried."""
    backoff: float = 1
    """The pause after the first round; it doubles with each."""
    retry_after: float = 30
    """The longest pause that a server's Retry-After is granted."""
    redirects: int = 5
    """How many redirects are followed."""


@dataclass(frozen=True)
class Body:
    """An answer: ``read(n)`` gives at most n bytes, none at the end; ``offset`` is where they begin."""

    read: Callable[[int], bytes]
    offset: int


class Transport:
    """Opens URLs. Threads may share one; `abort` ends what they read at that moment."""

    def __init__(self, limits: Limits, connections: int) -> None:
        self._limits = limits
        self._session = requests.Session()
        self._session.headers["User-Agent"] = "xen-aur-pipeline"
        # Without it, a server would send .tar.gz files unpacked, and other bytes than were pinned.
        self._session.headers["Accept-Encoding"] = "identity"
        self._session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        adapter = WatchingAdapter(limits.read, connections)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)
        self._open: set[requests.Response] = set()

    @contextlib.contextmanager
    def open(self, url: str, offset: int, size: int | None) -> Iterator[Body]:
        """Open a URL of a file of ``size`` bytes (None: nobody knows) so as to read it from ``offset`` on.

        The body may begin at 0 all the same, where a server does not do ranges.
        Raises RefusedError, its kind RangeError, or TransientError; reading from the body does so too.
        """
        opener = self._open_file if urlsplit(url).scheme == "file" else self._open_http
        with _translated(self._limits), opener(url, offset, size) as body:
            yield body

    def abort(self) -> None:
        """Make every read that is under way in other threads end soon."""
        for response in list(self._open):
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                response.raw.shutdown()

    @contextlib.contextmanager
    def _open_http(self, url: str, offset: int, size: int | None) -> Iterator[Body]:
        response = self._follow(url, offset)
        self._open.add(response)
        try:
            self._check_status(response)
            start = _start(response, offset, size)

            def read(count: int) -> bytes:
                # read1 returns what has come; read would wait for all of it, and lose it when killed.
                return response.raw.read1(count, decode_content=False) or b""

            yield Body(read, start)
        finally:
            self._open.discard(response)
            response.close()

    def _follow(self, url: str, offset: int) -> requests.Response:
        """Get a URL through its redirects. requests' own way reads their bodies, however long."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        timeout = (self._limits.connect, self._limits.read)
        seen: list[str] = []
        while True:
            try:
                response = self._session.get(
                    url, headers=headers, timeout=timeout, stream=True, allow_redirects=False
                )
                target = self._session.get_redirect_target(response)
                if target is None:
                    return response
                response.close()
                seen.append(url)
                url = urljoin(url, target)
            except ValueError as e:
                if isinstance(e, requests.exceptions.InvalidHeader):
                    raise  # of the answer
                # A host name that cannot be one, for instance.
                raise RefusedError(f"leads to {shown(url)}, which is no URL: {e}") from e
            if url in seen:
                raise RefusedError(f"redirects in a circle, by way of {shown(url)}")
            if len(seen) > self._limits.redirects:
                raise RefusedError(f"redirects more than {self._limits.redirects} times")

    def _check_status(self, response: requests.Response) -> None:
        status = response.status_code
        if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            return
        text = f"HTTP {status} {response.reason or '':.80}".rstrip()
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise RangeError(text)
        if status in _TRANSIENT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            wait = retry_after(response.headers.get("Retry-After"))
            raise TransientError(text, after=min(wait, self._limits.retry_after))
        raise RefusedError(text)

    @contextlib.contextmanager
    def _open_file(self, url: str, offset: int, size: int | None) -> Iterator[Body]:
        path = Path(url2pathname(urlsplit(url).path))
        try:
            # Looked at before it is opened: opening a FIFO would wait for a writer.
            if not stat.S_ISREG(path.stat().st_mode):
                raise RefusedError("is not a regular file")
            file = path.open("rb", buffering=0)
        except OSError as e:
            raise RefusedError(e.strerror or str(e)) from e
        with file:
            if (found := file.seek(0, 2)) != size and size is not None:
                raise RefusedError(f"has {found} bytes instead of {size}")
            file.seek(offset)

            def read(count: int) -> bytes:
                try:
                    return file.read(count)
                except OSError as e:
                    raise RefusedError(e.strerror or str(e)) from e

            yield Body(read, offset)


def _start(response: requests.Response, offset: int, size: int | None) -> int:
    """Return where an answer's body begins. Raises RefusedError where it cannot be the pinned file."""
    if response.status_code == HTTPStatus.OK:
        length = response.headers.get("Content-Length", "")
        if (
            size is not None
            and re.fullmatch(r"[0-9]+", length)
            and length.lstrip("0") != (str(size) if size else "")
        ):
            kind = response.headers.get("Content-Type", "no type")
            raise RefusedError(f"announces {length:.20} bytes ({kind:.80}) instead of {size}")
        return 0
    given = response.headers.get("Content-Range", "")
    match = _RANGE.fullmatch(given.strip())
    if match is None or int(match[1]) != offset:
        raise RangeError(f"sends the range {given[:80]!r} instead of the one from byte {offset} on")
    if size is not None and match[2] is not None and int(match[2]) != size:
        raise RefusedError(f"announces {int(match[2])} bytes in all instead of {size}")
    return offset


def retry_after(value: str | None) -> float:
    """Return how many seconds a Retry-After header (seconds or an HTTP date) asks to wait; 0 if unclear."""
    if not value:
        return 0
    # What strip takes off, float need not: control characters are space to one of them only.
    if re.fullmatch(r"[0-9]{1,9}", value := value.strip()):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0


def shown(url: str) -> str:
    """Return a URL as messages may show it: without a password."""
    return re.sub(r"(?<=//)[^/@]*@", "", url)


@contextlib.contextmanager
def _translated(limits: Limits) -> Iterator[None]:
    try:
        yield
    except requests.ConnectTimeout as e:
        raise TransientError(f"no connection within {limits.connect:g} s", unreachable=True) from e
    except (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError) as e:
        if isinstance(_root(e), SlowAnswerError):
            raise TransientError(f"sent no whole headers within {limits.read:g} s") from e
        raise TransientError(f"silent for {limits.read:g} s", unreachable=True) from e
    except (requests.ConnectionError, urllib3.exceptions.HTTPError) as e:
        cause = _root(e)
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise RefusedError(f"its certificate is not trusted: {cause.verify_message}") from e
        if isinstance(cause, http.client.IncompleteRead):
            raise TransientError("the connection ended too early") from e
        raise TransientError(why(e), unreachable=isinstance(e, requests.ConnectionError)) from e
    except requests.RequestException as e:
        raise RefusedError(str(e)) from e


def why(error: BaseException) -> str:
    """Say what was at the bottom of an error of requests or of what is built on it."""
    cause = _root(error)
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


def _root(error: BaseException) -> BaseException:
    """Return the error at the bottom of what requests and urllib3 have wrapped around it."""
    seen: list[BaseException] = []
    while error not in seen:
        seen.append(error)
        inner = [getattr(error, "reason", None), *error.args, error.__cause__]
        error = next((e for e in inner if isinstance(e, BaseException)), error)
    return error
