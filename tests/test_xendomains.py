"""The package's own xendomains, for releases whose toolstack upstream's script cannot drive.

It runs for real; `xl` has a stand-in that keeps the names of running guests in a file.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "package" / "xendomains"
XL = """#!/bin/bash
echo "$*" >> "$HOST/calls"
case $1 in
list) printf 'Name ID\\nDomain-0 0 1\\n'; sed 's/$/ 7 1/' "$HOST/running" ;;
create) sed -n 's/^name *= *"\\(.*\\)"/\\1/p' "${@: -1}" >> "$HOST/running" ;;
restore) [ ! -e "$HOST/no-restore" ] && basename "$2" >> "$HOST/running" ;;
save) [ ! -e "$HOST/no-save" ] && echo state > "$3" && sed -i "/^$2$/d" "$HOST/running" ;;
shutdown) [ ! -e "$HOST/no-shutdown" ] && sed -i "/^${@: -1}$/d" "$HOST/running" ;;
esac
"""


@dataclass
class Host:
    """A host with guests ``auto`` (started with it) and ``other``."""

    root: Path

    def run(self, command: str, settings: str = "") -> subprocess.CompletedProcess[str]:
        (self.root / "conf").write_text(
            f"XENDOMAINS_AUTO={self.root}/auto\nXENDOMAINS_SAVE={self.root}/save\nXENDOMAINS_RESTORE=true\n{settings}"
        )
        environment = {
            **os.environ,
            "PATH": f"{self.root}/bin:{os.environ['PATH']}",
            "HOST": str(self.root),
            "XENDOMAINS_CONF": str(self.root / "conf"),
        }
        return subprocess.run(
            ["bash", SCRIPT, command], env=environment, capture_output=True, text=True, check=False
        )

    @property
    def running(self) -> set[str]:
        return set((self.root / "running").read_text().split())

    @property
    def calls(self) -> list[str]:
        return (self.root / "calls").read_text().splitlines()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    for name in ("bin", "auto", "save"):
        (tmp_path / name).mkdir()
    (tmp_path / "bin/xl").write_text(XL)
    (tmp_path / "bin/xl").chmod(0o755)
    (tmp_path / "auto/first.cfg").write_text('name = "auto"\nmemory = 1\n')
    (tmp_path / "running").write_text("other\n")
    return Host(tmp_path)


def test_guests_start_with_the_host(host: Host) -> None:
    """The guests of a host must be there again after its restart, each once."""
    assert host.run("start").returncode == 0
    assert host.running == {"auto", "other"}
    assert host.run("start").returncode == 0
    assert sum(call.startswith("create") for call in host.calls) == 1


def test_guests_are_saved_and_come_back(host: Host) -> None:
    """A restart of the host must not cost a guest what it was doing."""
    host.run("start")
    assert host.run("stop").returncode == 0
    assert host.running == {"other"}, "only those of the folder are stopped"
    assert (host.root / "save/auto").exists()
    assert host.run("start").returncode == 0
    assert host.running == {"auto", "other"}
    assert not (host.root / "save/auto").exists()


def test_one_that_does_not_come_back_is_left_to_a_human(host: Host) -> None:
    """Started afresh on a disk that its saved state still counts on, it would destroy its data."""
    (host.root / "save/auto").write_text("state")
    (host.root / "no-restore").touch()
    done = host.run("start")
    assert done.returncode != 0
    assert "auto could not be restored" in done.stderr
    assert host.running == {"other"}
    assert (host.root / "save/auto").exists()


def test_one_that_cannot_be_saved_is_shut_down(host: Host) -> None:
    """It must not be cut off when the host's power goes, and half a state must not be restored."""
    (host.root / "no-save").touch()
    (host.root / "running").write_text("auto\n")
    assert host.run("stop").returncode == 0
    assert host.running == set()
    assert "shutdown --wait auto" in host.calls
    assert not list((host.root / "save").iterdir())


def test_all_are_shut_down_one_by_one(host: Host) -> None:
    """xl knows no --all before 4.3: given it, it would stop none."""
    (host.root / "running").write_text("a\nb\n")
    assert host.run("stop", 'XENDOMAINS_SHUTDOWN_ALL="--all --wait"\n').returncode == 0
    assert host.running == set()
    assert [call for call in host.calls if "--all" in call] == []


def test_what_cannot_be_stopped_is_a_failure(host: Host) -> None:
    """systemd shows it as one; silence would look like a clean stop."""
    (host.root / "no-shutdown").touch()
    done = host.run("stop", "XENDOMAINS_AUTO_ONLY=false\nXENDOMAINS_SAVE=\n")
    assert done.returncode != 0
    assert "other could not be shut down" in done.stderr


def test_wrong_use(host: Host) -> None:
    """A typing mistake must not stop guests."""
    assert host.run("sotp").returncode == 2
    assert host.running == {"other"}
