"""OpenPGP keys of the tests' own, made by the real gpg."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.repositories import Repository

LONG_AGO = ("--faked-system-time", "20200101T000000")


class Key:
    """An OpenPGP key: its home with the secret part, its fingerprint, its public part in a file."""

    def __init__(self, home: Path, *options: str, expires: str = "0") -> None:
        home.mkdir(mode=0o700)
        self.home = home
        self.env = {"GNUPGHOME": str(home), "PATH": os.environ["PATH"], "LC_ALL": "C"}
        user = f"{home.name} <{home.name}@example.org>"
        self.gpg(*options, "--quick-gen-key", user, "ed25519", "sign", expires)
        listed = self.gpg("--with-colons", "--list-keys").decode()
        self.fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))
        self.file = home.parent / f"{home.name}.asc"
        self.export(self.file)

    def gpg(self, *argv: str | Path, input: bytes | None = None) -> bytes:
        """Run gpg with this key's home."""
        command = ["gpg", "--batch", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback", *argv]
        return subprocess.run(command, env=self.env, input=input, check=True, capture_output=True).stdout

    def export(self, file: Path) -> None:
        """Write the public part as it is now."""
        file.write_bytes(self.gpg("--armor", "--export"))

    def revoke(self) -> None:
        """Revoke the key, and export it so; what it signed before stays signed by a revoked key."""
        text = (self.home / "openpgp-revocs.d" / f"{self.fingerprint}.rev").read_text()
        # gpg puts a colon before the armor, lest somebody imports it by mistake.
        self.gpg("--import", input=text.replace(":-----BEGIN", "-----BEGIN").encode())
        self.export(self.file)

    def sign(self, path: Path, *options: str) -> Path:
        """Sign a file by gpg itself."""
        signature = path.with_name(f"{path.name}.sig")
        self.gpg(*options, "--yes", "--output", signature, "--detach-sign", path)
        return signature

    def tag(self, repository: Repository, name: str, target: str = "HEAD") -> None:
        """Make a signed tag."""
        repository.git("tag", "-f", "-u", self.fingerprint, "-m", "signed", name, target, env=self.env)


@contextmanager
def some() -> Iterator[dict[str, Key]]:
    """Give two good keys, one that has expired, and one that is good and old."""
    # Not below pytest's folder: the path of the agent's socket may have 107 bytes at the most.
    with TemporaryDirectory(prefix="k", dir="/tmp") as name:
        folder = Path(name)
        keys = {
            "mine": Key(folder / "mine"),
            "other": Key(folder / "other"),
            "old": Key(folder / "old", *LONG_AGO, expires="1y"),
            "ancient": Key(folder / "ancient", *LONG_AGO),
        }
        try:
            yield keys
        finally:
            for home in (path for path in folder.iterdir() if path.is_dir()):
                subprocess.run(
                    ["gpgconf", "--kill", "gpg-agent"], env={**os.environ, "GNUPGHOME": str(home)}, check=True
                )
