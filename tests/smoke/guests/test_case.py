"""When it is seen that a guest is up, or will never be: the shell that waits in dom0, run here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipeline.smoke.agent import Reply
from pipeline.smoke.errors import CheckFailedError
from pipeline.smoke.guests import case
from pipeline.smoke.guests.case import GuestGoneError, OwnGuestCase, waiting
from pipeline.smoke.guests.config import GuestConfig
from pipeline.smoke.guests.guest import OwnGuest

WEB = OwnGuestCase(OwnGuest(Path("web.cfg"), "web", GuestConfig({}), {}, ()), (), "login:")


def wait(folder: Path, xl: str, log: bytes | None, says: str = "login:") -> subprocess.CompletedProcess[str]:
    """Wait where xl is a script, and waiting takes no time."""
    for name, text in (("xl", xl), ("sleep", "exit 0")):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    if log is not None:
        (folder / "log").write_bytes(log)
    return subprocess.run(
        ["busybox", "sh", "-c", waiting("web", str(folder / "log"), says)],
        env={"PATH": f"{folder}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        errors="replace",
    )


@pytest.mark.parametrize("log", [b"booting\r\nweb login: ", b"\xff\nweb login: \n\nmore\n"])
def test_a_guest_is_up_when_its_console_says_so(log: bytes, tmp_path: Path) -> None:
    """If this fails, a guest that is up is waited for until it counts as hung."""
    done = wait(tmp_path, "exit 1", log)
    assert done.returncode == 0
    assert "web login:" in done.stdout


def test_what_it_says_is_taken_as_it_is(tmp_path: Path) -> None:
    """If this fails, a prompt with special characters is never found, or runs as a command in dom0."""
    says = "-[it's] $(up) {now}"
    assert wait(tmp_path, "exit 1", f"x\n{says}\n".encode(), says).returncode == 0
    assert wait(tmp_path, "exit 1", b"it is up now\n", says).returncode == case._GONE


@pytest.mark.parametrize(
    ("xl", "log", "status"),
    [
        ("exit 1", None, case._GONE),
        ("echo 1", b"Kernel panic - not syncing: x\n", case._PANICKED),
        ('echo x >>"$0.n"; wc -l <"$0.n"', b"booting\n", case._RESTARTING),
    ],
)
def test_a_guest_that_will_never_be_up_is_not_waited_for(
    xl: str, log: bytes | None, status: int, tmp_path: Path
) -> None:
    """If this fails, a guest that panics, goes or loops is waited for during 20 minutes."""
    done = wait(tmp_path, xl, log)
    assert done.returncode == status
    with pytest.raises(GuestGoneError, match=r"web .* before it said 'login:'"):
        WEB._judged(Reply(status, "", truncated=False), "the end")


def test_a_guest_may_start_anew(tmp_path: Path) -> None:
    """If this fails, a guest that starts anew once, as after its first boot, is called gone."""
    xl = (
        'echo x >>"$0.n"; n=$(wc -l <"$0.n")\n'
        'case $n in 1|2) echo 1;; 3|4) exit 1;; 9) echo login: >"${0%/*}/log"; echo 2;; *) echo 2;; esac'
    )
    assert wait(tmp_path, xl, None).returncode == 0


def test_other_ends_of_the_wait_are_told() -> None:
    """If this fails, a shell that dom0 kills takes the whole run with it."""
    with pytest.raises(CheckFailedError, match="exit status 137"):
        WEB._judged(Reply(137, "Killed", truncated=False), "")


def test_the_evidence_is_one_plain_line() -> None:
    """If this fails, a report has a guest's colours and progress bars in it."""
    line = "10%\r20%\r\x1b[1;32mweb\x1b[0m login: \r\n"
    assert WEB._judged(Reply(0, line, truncated=False), "") == "web login:"
    assert len(WEB._judged(Reply(0, "x" * 5000, truncated=False), "")) == 200
