"""Machines to send to: real sshds of the tests' own, each with a home and a PATH."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TOOLS = [
    "sh",
    "bash",
    "uname",
    "id",
    "df",
    "wc",
    "cat",
    "dd",
    "mkdir",
    "mv",
    "rm",
    "sha256sum",
    "openssl",
    "sleep",
    "grep",
    "env",
]
"""What a target has: pacman comes from a wrapper."""


@dataclass
class Target:
    """A machine: its name for ssh, its home, its tools, and the folder that its pacman installs to."""

    name: str
    folder: Path
    port: int
    without: Sequence[str] = ()
    namespace: str = ""
    address: str = "127.0.0.1"
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def tools(self) -> Path:
        return self.folder / "bin"

    def prepare(self) -> None:
        for path in (self.home, self.root / "var/lib/pacman", self.tools):
            path.mkdir(parents=True)
        for tool in TOOLS:
            if tool not in self.without:
                (self.tools / tool).symlink_to(shutil.which(tool) or "/nonexistent")
        if "rsync" not in self.without:
            # sshd starts in the home of the user database, which all of these machines share.
            self.tool("rsync", 'cd "$HOME" && exec /usr/bin/rsync "$@"')
        options = f"--root {self.root} --dbpath {self.root}/var/lib/pacman --hookdir /nonexistent"
        self.tool("pacman", f'exec /usr/bin/pacman {options} --logfile /dev/null "$@"')

    def tool(self, name: str, script: str) -> None:
        """Give it a program of one's own."""
        (self.tools / name).unlink(missing_ok=True)
        (self.tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.tools / name).chmod(0o755)

    def start(self, keys: Path) -> None:
        environment = f"PATH={self.tools} HOME={self.home}"
        options = [
            f"Port {self.port}",
            f"ListenAddress {self.address}",
            f"HostKey {keys}/host",
            f"AuthorizedKeysFile {keys}/user.pub",
            f"PidFile {self.folder}/pid",
            "StrictModes no",
            "UsePAM no",
            f"SetEnv {environment}",
        ]
        (self.folder / "sshd_config").write_text("\n".join([*options, ""]))
        Path("/run/sshd").mkdir(exist_ok=True)
        prefix = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        command = [*prefix, "/usr/sbin/sshd", "-D", "-e", "-f", str(self.folder / "sshd_config")]
        with (self.folder / "sshd.log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection((self.address, self.port), 1):
                return
            assert self.process.poll() is None, (self.folder / "sshd.log").read_text()
            time.sleep(0.05)
        raise AssertionError((self.folder / "sshd.log").read_text())

    def stop(self) -> None:
        if self.process is not None:
            # Sessions outlive it where the link to them is gone.
            subprocess.run(["pkill", "-KILL", "-P", str(self.process.pid)], check=False)
            self.process.terminate()
            self.process.wait()

    def sent(self) -> dict[str, bytes]:
        """The verified files that it has, by name."""
        folders = [p for p in self.home.glob("xen-packages/*") if p.suffix != ".part"]
        return {path.name: path.read_bytes() for folder in folders for path in folder.iterdir()}

    def unverified(self) -> int:
        """How many bytes it has that are not verified yet."""
        found = self.home.glob("xen-packages/*.part/*")
        return sum(path.stat().st_size for path in found)


def make_keys(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    return folder


def configure(keys: Path, targets: Sequence[Target]) -> Path:
    """Write what stands for the user's ~/.ssh/config, and return it."""
    known = (keys / "host.pub").read_text().split()
    hosts = [f"[{t.address}]:{t.port} {known[0]} {known[1]}" for t in targets]
    (keys / "known_hosts").write_text("\n".join([*hosts, ""]))
    blocks = [f"Host {t.name}\n  HostName {t.address}\n  Port {t.port}\n" for t in targets]
    common = f"Host *\n  User root\n  IdentityFile {keys}/user\n  IdentitiesOnly yes\n"
    common += f"  UserKnownHostsFile {keys}/known_hosts\n  StrictHostKeyChecking yes\n"
    (keys / "config").write_text("\n".join([*blocks, common]))
    return keys / "config"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def use_configuration(config: Path, folder: Path) -> Iterator[None]:
    """Let programs' ssh use a configuration; OpenSSH looks into the home that the user database names."""
    folder.mkdir()
    (folder / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {config} "$@"\n')
    (folder / "ssh").chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}:{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before
