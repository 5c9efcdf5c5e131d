"""The units are what systemd takes, and shut in what they run; the examples for CI name real commands."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from invoke.vendor import yaml

from pipeline.errors import HostError, UsageError
from pipeline.schedule.install import SERVICE, TIMER, Schedule
from tests.checkouts import Checkout

PROJECT = Path(__file__).resolve().parents[2]
CI = PROJECT / "ci"
EXPOSURE = 40
"""What `systemd-analyze security` may say at the most, times ten: 100 is a service without any walls."""


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *map(str, words)], capture_output=True, text=True)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The folder of the installed units."""
    return Schedule().install(tmp_path)[0].parent


def test_systemd_takes_the_units(units: Path) -> None:
    """A mistake would show as nights that never take place."""
    done = analyze("verify", "--man=no", units / SERVICE, units / TIMER)
    said = [line for line in done.stderr.splitlines() if "xen-nightly" in line]
    assert (done.returncode, said) == (0, [])


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("NoNewPrivileges=yes", "NoNewPrivilege=yes"),
        ("ExecStart=", "ExecStart=/nonexistent/x "),
        ("OnCalendar=", "OnCalendar=sometimes "),
    ],
)
def test_mistakes_in_units_are_seen(units: Path, right: str, wrong: str) -> None:
    """Or the test above says nothing."""
    name = TIMER if right.startswith("OnCal") else SERVICE
    text = (units / name).read_text()
    assert right in text
    (units / name).write_text(text.replace(right, wrong, 1))
    done = analyze("verify", "--man=no", units / name)
    assert any("xen-nightly" in line for line in done.stderr.splitlines())


def test_the_service_is_shut_in(units: Path) -> None:
    """What a night runs comes from the network: it must not reach the machine it runs on."""
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", units / SERVICE)
    assert done.returncode == 0, done.stdout
    text = (units / SERVICE).read_text()
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "User=xen-nightly", "MemoryMax=8G"):
        assert f"\n{line}\n" in text
    assert f"CPUQuota={os.cpu_count()}00%" in text
    (units / SERVICE).write_text(
        re.sub(r"^(Protect|Private|Restrict|System|Cap).*\n", "", text, flags=re.MULTILINE)
    )
    assert analyze("security", "--offline=true", f"--threshold={EXPOSURE}", units / SERVICE).returncode != 0


def test_the_user_is_one_that_sysusers_makes(tmp_path: Path) -> None:
    """Without it the service would not start."""
    Schedule(user="builder").install(tmp_path)
    (tmp_path / "etc/passwd").touch()
    done = subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", "--dry-run"], capture_output=True, text=True
    )
    assert "Would create user 'builder'" in re.sub(r"[“”]", "'", done.stdout + done.stderr) or (
        "builder" in done.stdout + done.stderr
    )
    assert "User=builder" in (tmp_path / "etc/systemd/system" / SERVICE).read_text()


@pytest.mark.parametrize(
    "words",
    [{"when": "sometimes"}, {"user": "a b"}, {"memory": "much"}, {"cpus": -1}, {"project": Path('/a"b')}],
)
def test_mistakes_are_named_before_anything_is_written(tmp_path: Path, words: dict[str, object]) -> None:
    """A unit with half a line in it would be read by systemd in its own way."""
    with pytest.raises(UsageError):
        Schedule(**words).install(tmp_path)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_path_with_spaces_and_percents(tmp_path: Path) -> None:
    """Units have an own idea of both."""
    project = tmp_path / "100% für sich"
    project.mkdir()
    (project / "inv").write_text("#!/bin/sh\n")
    (project / "inv").chmod(0o755)
    folder = Schedule(project=project).install(tmp_path)[0].parent
    done = analyze("verify", "--man=no", folder / SERVICE)
    assert [line for line in done.stderr.splitlines() if "xen-nightly" in line] == []


def test_only_root_installs() -> None:
    """Others are told how, instead of half of it being done."""
    if os.geteuid() == 0:
        assert Schedule().render()[TIMER].count("OnCalendar=*-*-* 02:00:00") == 1
        return
    with pytest.raises(HostError, match="installed by root"):
        Schedule().install(Path("/"))


def test_examples_for_ci_run_commands_that_exist(tmp_path: Path) -> None:
    """Nobody here runs them: a renamed command would go unseen."""
    env = {"INVOKE_PIPELINE_RELEASE": "4.17"}
    listed = Checkout(PROJECT, tmp_path).run("--list", env=env).fine().out
    known = set(re.findall(r"[a-z]+(?:\.[a-z]+)*", listed))
    for name in ("github.yml", "gitlab.yml", "crontab"):
        text = (CI / name).read_text()
        if name.endswith(".yml"):
            assert yaml.safe_load(text)  # type: ignore[no-untyped-call]
        commands = set(re.findall(r"\./inv ([a-z.]+)", text))
        assert {"nightly", "report"} <= commands <= known
