"""Compares fetch with aria2c and curl: ``python -m benchmarks.fetch [FILES] [MIB] [MBIT]``.

FILES files of MIB each come from a server of its own, in a network namespace behind a link of MBIT per
second (0 is as fast as it goes), by six at once. All hash what they get; aria2c and curl leave that to
sha256sum. Run as root from the project's folder. Prints the median seconds of three runs each, in turns, and
the ratios.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks._link import FAR, Link, link
from pipeline.fetch import fetch
from pipeline.mirrors import Mirrors
from pipeline.source import Source
from pipeline.store import Store

RUNS = 3
AT_ONCE = 6
_SERVE = """
import functools, http.server, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
handler = functools.partial(Handler, directory=sys.argv[2])
http.server.ThreadingHTTPServer((sys.argv[1], 8080), handler).serve_forever()
"""


@contextlib.contextmanager
def server(folder: Path, line: Link) -> Iterator[str]:
    """Serve a folder from the far end of a link; gives the URL."""
    command = ["ip", "netns", "exec", line.namespace, sys.executable, "-c", _SERVE, FAR, str(folder)]
    with subprocess.Popen(command) as process:
        time.sleep(1)
        try:
            yield f"http://{FAR}:8080"
        finally:
            process.kill()


def contenders(sources: list[Source], folder: Path) -> dict[str, Callable[[], None]]:
    """What is compared: each brings all files into an empty folder, and knows their hashes then."""
    urls = folder / "urls"
    urls.write_text("".join(f"{source.urls[0]}\n" for source in sources))
    sums = "".join(f"{source.sha256}  {source.name}\n" for source in sources)

    def hashed(command: list[str]) -> None:
        target = folder / "target"
        target.mkdir()
        subprocess.run(command, cwd=target, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.run(["sha256sum", "--quiet", "--check"], cwd=target, input=sums.encode(), check=True)
        shutil.rmtree(target)

    def ours() -> None:
        fetch(sources, Store(folder / "store"), Mirrors(), jobs=AT_ONCE, progress=False)
        shutil.rmtree(folder / "store")

    curl = ["curl", "--silent", "--parallel", "--parallel-max", str(AT_ONCE), "--remote-name-all"]
    found: dict[str, Callable[[], None]] = {"fetch": ours}
    found["curl"] = lambda: hashed([*curl, *(source.urls[0] for source in sources)])
    if shutil.which("aria2c"):
        found["aria2c"] = lambda: hashed(["aria2c", "--quiet", f"-j{AT_ONCE}", f"--input-file={urls}"])
    return found


def main(count: int, mib: int, mbit: int) -> None:
    """Make the files, measure, and print."""
    with tempfile.TemporaryDirectory(prefix="fetch-") as name:
        folder = Path(name)
        (folder / "served").mkdir()
        with link(mbit) as line, server(folder / "served", line) as url:
            sources = []
            for number in range(count):
                data = secrets.token_bytes(mib << 20)
                file = f"file-{number}.tar.xz"
                (folder / "served" / file).write_bytes(data)
                sha256 = hashlib.sha256(data).hexdigest()
                sources.append(Source(name=file, urls=(f"{url}/{file}",), size=len(data), sha256=sha256))
            seconds: dict[str, list[float]] = {}
            for _ in range(RUNS):
                for what, work in contenders(sources, folder).items():
                    start = time.monotonic()
                    work()
                    seconds.setdefault(what, []).append(time.monotonic() - start)
    medians = {what: statistics.median(found) for what, found in seconds.items()}
    sys.stdout.write(f"{count} files of {mib} MiB, {line}, median of {RUNS}: ")
    sys.stdout.write(", ".join(f"{what} {median:.2f} s" for what, median in medians.items()) + "\n")
    for what, median in medians.items():
        if what != "fetch":
            sys.stdout.write(f"fetch to {what}: ratio {medians['fetch'] / median:.2f} of time\n")


if __name__ == "__main__":
    main(*(int(word) for word in (*sys.argv[1:4], *("24", "4", "400")[len(sys.argv) - 1 :])))
