"""What this host must have installed, and how it gets it."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import dataclass

from pipeline import log
from pipeline.errors import CommandError, HostError
from pipeline.run import run


@dataclass(frozen=True)
class PackageManager:
    """A distribution's package manager: what is needed by which name, and how to ask and install."""

    needed: tuple[str, ...]
    needed_for_tests: tuple[str, ...]
    query: tuple[str, ...]
    update: tuple[str, ...] | None
    install: tuple[str, ...]

    def missing(self, wanted: tuple[str, ...]) -> list[str]:
        """Return those of ``wanted`` that are not installed."""
        output = run([*self.query, *wanted], expect=None, merge_stderr=False).output
        installed = {line.split()[0] for line in output.splitlines() if " not-installed" not in line}
        return [name for name in wanted if name not in installed]


_APT = PackageManager(
    needed=(
        "apt-utils",
        "archlinux-keyring",
        "bubblewrap",
        "ca-certificates",
        "debian-archive-keyring",
        "git",
        "gpg",
        "kmod",
        "libarchive13",
        "libmagic1",
        "locales",
        "lowdown",
        "mandoc",
        "mmdebstrap",
        "openssh-client",
        "pacman-package-manager",
        "qemu-system-x86",
        "qemu-utils",
        "rsync",
        "uidmap",
        "util-linux",
        "xz-utils",
    ),
    needed_for_tests=(
        "chromium",
        "cpio",
        "docker.io",
        "fish",
        "gpg-agent",
        "grub-common",
        "libarchive-tools",
        "libfaketime",
        "iproute2",
        "makepkg",
        "openssh-server",
        "shellcheck",
        "systemd",
        "zsh",
        "zstd",
    ),
    query=("dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\\n"),
    update=("apt-get", "--quiet", "update"),
    install=("apt-get", "--quiet", "install", "--yes", "--no-install-recommends"),
)

_PACMAN = PackageManager(
    needed=(
        "apt",
        "bubblewrap",
        "debian-archive-keyring",
        "dpkg",
        "git",
        "gnupg",
        "kmod",
        "libarchive",
        "lowdown",
        "mandoc",
        "mmdebstrap",
        "openssh",
        "qemu-img",
        "qemu-system-x86",
        "rsync",
        "util-linux",
        "xz",
    ),
    needed_for_tests=(
        "chromium",
        "cpio",
        "docker",
        "fish",
        "grub",
        "iproute2",
        "libfaketime",
        "shellcheck",
        "zsh",
    ),
    query=("pacman", "--query"),
    update=None,
    install=("pacman", "--sync", "--needed", "--noconfirm"),
)


def package_manager() -> PackageManager:
    """Return this host's package manager; raises HostError where it is neither apt nor pacman."""
    # Debian has a pacman package too, so apt is asked first.
    if shutil.which("dpkg-query") and shutil.which("apt-get"):
        return _APT
    if shutil.which("pacman"):
        return _PACMAN
    raise HostError(
        "This host is neither a Debian nor an Arch system.",
        hint="./inv doctor lists the programs that are needed.",
    )


def set_up(*, tests: bool) -> None:
    """Install what is missing; raises HostError naming the one command where this user may not."""
    manager = package_manager()
    wanted = manager.needed + (manager.needed_for_tests if tests else ())
    missing = manager.missing(wanted)
    if not missing:
        log.info("setup: everything is installed")
        return
    commands = [*([manager.update] if manager.update else []), (*manager.install, *missing)]
    if os.geteuid() != 0:
        line = " && ".join(shlex.join(command) for command in commands)
        raise HostError(f"This host lacks {', '.join(missing)}.", hint=f"Run as root: {line}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with log.step(f"Installing {', '.join(missing)}"):
        for command in commands:
            try:
                run(command, env=env)
            except CommandError as e:
                raise HostError(f"{shlex.join(command[:2])} failed.", hint=e.hint) from e
