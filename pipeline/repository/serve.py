"""Serves the repositories over HTTP, for the local network."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from pipeline import log
from pipeline.errors import HostError, UsageError
from pipeline.repository.channel import INDEX, Channel, Place

DEFAULT_PORT = 8470

_NAME = re.compile(r"[A-Za-z0-9@][A-Za-z0-9@._+~:-]*")


def application(root: Path) -> web.Application:
    """Make the application that serves ``root``, the folder of all channels."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return _answer(root, request)

    app = web.Application()
    app.router.add_get("/{channel}/x86_64/{name}", answer)
    app.router.add_get("/{channel}/x86_64/generations/{generation:[0-9]+}/{name}", answer)
    return app


def _answer(root: Path, request: web.Request) -> web.StreamResponse:
    info = request.match_info
    if info["channel"] not in set(Channel) or not _NAME.fullmatch(info["name"]):
        raise web.HTTPNotFound
    place = Place(root, Channel(info["channel"]))
    name = info["name"]
    if "generation" in info:
        path = place.folder / "generations" / info["generation"] / name
        return _file(path, name in place.database_files)
    if name not in place.database_files:
        return _file(place.folder / name, ".pkg.tar." in name)
    # pacman asks for a database's signature beside the address that it was led to, so whatever is published
    # between its two requests, they get what belongs together.
    try:
        generation = (place.folder / "current").readlink().name
    except OSError as e:
        raise web.HTTPNotFound from e
    raise web.HTTPFound(f"/{place.channel}/x86_64/generations/{generation}/{name}")


def _file(path: Path, known: bool) -> web.FileResponse:
    if not known or path.is_symlink() or not path.is_file():
        raise web.HTTPNotFound
    return web.FileResponse(path)  # knows ranges and If-Modified-Since


def lines(place: Place, url: str) -> str:
    """The lines of pacman.conf with which a machine uses a channel."""
    index = place.read()
    signed = index is not None and index.key
    level = "Required DatabaseRequired" if signed else "Optional TrustAll"
    text = f"[{place.channel.repository}]\nSigLevel = {level}\nServer = {url}/{place.channel}/$arch\n"
    if signed:
        text = f"# pacman-key --add KEYFILE && pacman-key --lsign-key {signed}\n{text}"
    if index and (unproven := [p.file for p in index.offered.values() if p.unproven]):
        text = f"# Without passing evidence (see {INDEX}): {', '.join(unproven)}\n{text}"
    return text


def serve(root: Path, bind: str, port: int) -> None:
    """Serve until interrupted; prints each channel's lines for pacman.conf first.

    ``bind`` is the address to listen on, ``port`` 0 any free one. Raises UsageError and HostError.
    """
    listener = _listen(bind, port)
    places = [Place(root, channel) for channel in Channel]
    published = [place for place in places if place.read() is not None]
    if not published:
        listener.close()
        raise UsageError("Nothing has been published yet.", hint="./inv publish makes a repository.")
    url = f"http://{_host(listener)}:{listener.getsockname()[1]}"
    _announce(published, url)
    if not ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
        log.warn(f"Every machine that reaches {bind} can read this repository.")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(application(root), listener))


def _announce(places: Sequence[Place], url: str) -> None:
    for place in places:
        # At once: whoever reads this from a pipe waits for it.
        print(lines(place, url), flush=True)  # noqa: T201


def _listen(bind: str, port: int) -> socket.socket:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as e:
        raise HostError(f"This host cannot listen on {bind}, port {port}: {e.strerror}.") from e
    return listener


def _host(listener: socket.socket) -> str:
    """Name this host for clients: the address that it listens on, or its name where that is all of them."""
    address = ipaddress.ip_address(listener.getsockname()[0])
    if address.is_unspecified:
        return socket.gethostname()
    return f"[{address}]" if address.version == 6 else str(address)


async def _run(app: web.Application, listener: socket.socket) -> None:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
