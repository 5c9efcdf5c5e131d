"""A machine that uses a repository: the real pacman with a root, a database and a keyring of its own."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.keys import Key


@dataclass(frozen=True)
class Client:
    """An empty machine, and the pacman on it."""

    root: Path

    def configure(self, lines: str, *, siglevel: str = "Optional TrustAll") -> None:
        """Give it the repositories of a pacman.conf, below the usual options."""
        for name in ("var/lib/pacman", "var/cache/pacman/pkg", "etc", "gnupg"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.root / "gnupg").chmod(0o700)
        options = f"[options]\nArchitecture = x86_64\nSigLevel = {siglevel}\n"
        (self.root / "etc" / "pacman.conf").write_text(f"{options}\n{lines}")

    def trust(self, key: Key) -> None:
        """Do what pacman.conf's lines say: pacman-key --add and --lsign-key."""
        home = self.root / "gnupg"
        for words in (["--init"], ["--add", str(key.file)], ["--lsign-key", key.fingerprint]):
            command = ["pacman-key", "--gpgdir", str(home), "--config", str(self.root / "etc/pacman.conf")]
            subprocess.run([*command, *words], check=True, capture_output=True)
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)

    def pacman(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run pacman, whatever comes of it."""
        root = self.root
        command: list[str | Path] = ["pacman", "--root", root, "--dbpath", root / "var/lib/pacman"]
        command += ["--config", root / "etc/pacman.conf", "--cachedir", root / "var/cache/pacman/pkg"]
        command += [
            "--noconfirm",
            "--gpgdir",
            root / "gnupg",
            "--hookdir",
            "/nonexistent",
            "--logfile",
            "/dev/null",
        ]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120)

    def fine(self, *arguments: str | Path) -> str:
        """Run pacman, and assert that it was fine."""
        done = self.pacman(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
