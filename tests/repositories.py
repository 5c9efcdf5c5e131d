"""Real git repositories, and a real HTTP server for them that can misbehave."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.source import GitSource

WHEN = "1400000000 +0200"


def git(*argv: str, cwd: Path, input: bytes | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run git as a project's author would, without anybody's settings."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_AUTHOR_DATE": WHEN,
        "GIT_COMMITTER_NAME": "C", "GIT_COMMITTER_EMAIL": "c@example.org", "GIT_COMMITTER_DATE": WHEN,
        **(env or {}),
    }  # fmt: skip
    command = ["git", "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", *argv]
    done = subprocess.run(command, cwd=cwd, env=environment, input=input, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode(errors="surrogateescape").strip()


@dataclass(frozen=True)
class Repository:
    """A repository with a work tree."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Repository:
        folder.mkdir(parents=True)
        git("init", "--quiet", cwd=folder)
        return cls(folder)

    def git(self, *argv: str, input: bytes | None = None, env: Mapping[str, str] | None = None) -> str:
        return git(*argv, cwd=self.folder, input=input, env=env)

    def commit(self, files: Mapping[str, bytes], message: str = "change") -> str:
        """Write files, commit everything, and return the commit's id."""
        for name, data in files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(data)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def commit_tree(self, listing: bytes) -> str:
        """Commit a tree as `git mktree` takes it, and return the commit's id."""
        tree = self.git("mktree", "--missing", input=listing)
        commit = self.git("commit-tree", tree, "-m", "made")
        self.git("update-ref", "refs/heads/made", commit)
        return commit

    def blob(self, data: bytes) -> str:
        return self.git("hash-object", "-w", "--stdin", input=data)

    @property
    def url(self) -> str:
        return self.folder.as_uri()

    def source(self, commit: str, name: str = "thing", **more: object) -> GitSource:
        return GitSource(**{"name": name, "urls": (self.url,), "commit": commit, **more})  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    """CGI for `git http-backend`."""

    server: _Server

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self.rfile.read(int(self.headers["Content-Length"])))

    def _serve(self, body: bytes) -> None:
        owner, url = self.server.owner, urlsplit(self.path)
        owner.requests.append(url.path)
        with contextlib.suppress(ConnectionError):
            if owner.status is not None:
                self.send_error(owner.status)
            elif owner.dumb:
                self._file(owner.root / url.path.lstrip("/"))
            else:
                self._backend(body)

    def _file(self, path: Path) -> None:
        if not path.is_file():
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(path.read_bytes())

    def _backend(self, body: bytes) -> None:
        owner, url = self.server.owner, urlsplit(self.path)
        protocol = "" if owner.old else self.headers.get("Git-Protocol", "")
        env = {
            "PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_PROJECT_ROOT": str(owner.root), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": url.path,
            "QUERY_STRING": url.query, "REQUEST_METHOD": self.command, "GIT_PROTOCOL": protocol,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }  # fmt: skip
        done = subprocess.run(["git", "http-backend"], env=env, input=body, capture_output=True)
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if owner.stall_after is not None and len(answer) > owner.stall_after:
            self.wfile.write(answer[: owner.stall_after])
            self.wfile.flush()
            owner.stalled.set()
            owner.go_on.wait(60)
            return
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Keep standard error for the code under test."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    owner: GitServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are part of the tests."""


@dataclass
class GitServer:
    """Serves the repositories below ``root``.

    ``old`` knows no newer protocol, and so gives no commit that no branch ends in; ``dumb`` gives plain
    files; ``stall_after`` stops answers after that many bytes; ``status`` is all that is answered.
    """

    root: Path
    address: str = ""
    old: bool = False
    dumb: bool = False
    status: int | None = None
    stall_after: int | None = None
    stalled: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    requests: list[str] = field(default_factory=list)


@contextlib.contextmanager
def serving(root: Path) -> Iterator[GitServer]:
    """Serve the repositories below a folder on loopback."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.owner = GitServer(root, f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.owner
    finally:
        server.owner.go_on.set()
        server.shutdown()
        thread.join()
        server.server_close()
