"""The command line: every way of using it wrongly is one sentence and the documented status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli import came_of_interrupt
from tests import checkouts
from tests.checkouts import Checkout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    folder = tmp_path_factory.mktemp("cli")
    return Checkout(checkouts.copy(folder / "a copy für sich"), folder / "store")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nonsense"], "nonsense"),
        (["build", "4.99"], "4.99"),
        (["build", "--nonsense"], "--nonsense"),
        (["build", "4.17", "4.18"], "4.1"),
        (["image", "nonsense"], "nonsense"),
        (["image.lock", "../x"], "../x"),
        (["check", "4.17", "x.pkg.tar.xz"], "one release"),
        (["smoke", "4.17"], "has not been built"),
    ],
)
def test_wrong_use_is_one_sentence(checkout: Checkout, arguments: list[str], named: str) -> None:
    """Users who see a traceback think that the program is broken, not their command."""
    env = {"INVOKE_PIPELINE_RELEASE": "4.17"}
    assert named in checkout.run(*arguments, env=env).failed(2).err


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("INVOKE_PIPELINE_JOBS", "many", "jobs"),
        ("INVOKE_PIPELINE_ENGINE", "podman", "podman"),
        ("INVOKE_PIPELINE_RELEASE", "4.99", "4.99"),
        ("INVOKE_PIPELINE_REPOSITORY_KEEP", "0", "repository.keep"),
        ("INVOKE_PIPELINE_ENGIN", "docker", "invoke_pipeline_engin"),
        ("INVOKE_PIPELINE_NIGHTLY_STEPS", "check", "invoke_pipeline_nightly_steps"),
    ],
)
def test_a_wrong_variable_is_named(checkout: Checkout, variable: str, value: str, named: str) -> None:
    """Settings by variable are what CI uses; nobody watches there."""
    assert named in checkout.run("smoke", env={variable: value}).failed(2).err.lower()


def test_a_broken_settings_file_is_named(checkout: Checkout, tmp_path: Path) -> None:
    """A user's own settings are the first thing that a user breaks."""
    (tmp_path / ".invoke.yaml").write_text("pipeline: [\n")
    assert ".invoke.yaml" in checkout.run("smoke", env={"HOME": str(tmp_path)}).failed(2).err
    (tmp_path / ".invoke.yaml").write_text("pipeline: 3\n")
    checkout.run("smoke", env={"HOME": str(tmp_path)}).failed(2)


@pytest.mark.parametrize(
    "text",
    [
        'packager: "\xe9"',
        "42",
        "pipeline: &p {mirrors: *p}",
        "pipeline: " + "[" * 3000,
        "pipeline: {release: 2026-01-01}",
        "pipeline: {release: 2026-99-01}",
        "5: small",
        "pipeline: {mirrors: {rewrites: {1: [2]}}}",
        "pipeline: {jobs: " + "9" * 5000 + "}",
        "run: 5",
        "pipeline: [1, 2]",
    ],
)
def test_a_file_of_anything_is_a_sentence(checkout: Checkout, tmp_path: Path, text: str) -> None:
    """YAML makes anything of a file, and Invoke a traceback of most of that."""
    (tmp_path / ".invoke.yaml").write_bytes(text.encode("latin-1"))
    err = checkout.run("recipe", env={"HOME": str(tmp_path)}).failed(2).err
    assert len(err) < 600


def test_a_file_that_is_named_is_read_as_well(checkout: Checkout, tmp_path: Path) -> None:
    """Whoever tries other settings for once makes mistakes too."""
    (tmp_path / "own.yaml").write_text("pipeline: [\n")
    assert "cannot be read" in checkout.run("-f", str(tmp_path / "own.yaml"), "recipe").failed(2).err
    (tmp_path / "own.yaml").write_text("42\n")
    assert "cannot be read" in checkout.run("-f", str(tmp_path / "own.yaml"), "recipe").failed(2).err
    (tmp_path / "own.txt").touch()
    assert "cannot be read" in checkout.run("-f", str(tmp_path / "own.txt"), "recipe").failed(2).err


def test_help_needs_no_good_variables(checkout: Checkout) -> None:
    """Who wants to know how to set something has it wrong until then."""
    checkout.run("--list", env={"INVOKE_PIPELINE_ENGIN": "docker"}).fine()
    checkout.run("--help", "build", env={"INVOKE_PIPELINE_ENGIN": "docker"}).fine()


def test_a_users_own_settings_count(checkout: Checkout, tmp_path: Path) -> None:
    """Else a user has to change the project to have another default release."""
    (tmp_path / ".invoke.yaml").write_text('pipeline: {release: "4.98"}\n')
    home, alone = {"HOME": str(tmp_path)}, ("env", "--unset=INVOKE_PIPELINE_RELEASE")
    assert "4.98" in checkout.run("smoke", env=home, prefix=alone).failed(2).err
    assert "4.98" not in checkout.run("smoke", env=home).failed(2).err  # the variable


def test_a_folder_without_permission_is_named(checkout: Checkout, tmp_path: Path) -> None:
    """The user must learn which folder, and that it is not the pipeline's fault."""
    (tmp_path / "file").touch()
    env = {"INVOKE_PIPELINE_STORE": str(tmp_path / "file" / "store"), "INVOKE_PIPELINE_RELEASE": "4.17"}
    assert str(tmp_path / "file") in checkout.run("image", "debian-bookworm", env=env).failed(3).err


COMMAND_NAMES = (
    "aur.push",
    "bisect",
    "build",
    "bundle",
    "check",
    "completion",
    "diff",
    "doctor",
    "farm",
    "fetch",
    "image",
    "image.lock",
    "lint",
    "manual",
    "nightly",
    "nightly.install",
    "nightly.resolve",
    "publish",
    "receive",
    "recipe",
    "release",
    "report",
    "reproduce",
    "send",
    "serve",
    "setup",
    "sign",
    "smoke",
    "test",
    "verify",
)


@pytest.mark.parametrize("command", COMMAND_NAMES)
def test_help_explains_every_option_and_shows_an_example(checkout: Checkout, command: str) -> None:
    """Or users would have to read the code to learn what an option means."""
    text = checkout.run("--help", command).fine().out
    assert "Example: ./inv " in text
    lines = text.partition("Options:\n")[2].splitlines()
    for line in lines:
        if line.lstrip().startswith("-"):
            assert len(line.strip().split("   ", 1)) == 2, f"no help: {line}"
    assert checkout.run(command, "--help").fine().out == text


def test_the_list_holds_every_command_that_is_tested_here(checkout: Checkout) -> None:
    """Or a new command would go without its help being looked at."""
    text = checkout.run("--list").fine().out
    listed = [line.split()[0] for line in text.splitlines() if line.startswith("  ") and line[2] != " "]
    assert sorted(listed) == sorted(COMMAND_NAMES)
    assert "More" not in text.splitlines(), "a command without a group: see pipeline/overview.py"


def test_a_library_that_trips_over_an_interrupt_is_no_mistake_of_ours() -> None:
    """If this fails, Ctrl-C at a bad moment is told as a fault of the pipeline, with status 3."""

    def write() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise AttributeError("no attribute '_lock'")

    with pytest.raises(AttributeError) as tripped:
        write()
    assert came_of_interrupt(tripped.value)
    assert not came_of_interrupt(AttributeError("another"))


@pytest.mark.parametrize("closing", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_a_status_does_not_depend_on_who_listens(checkout: Checkout, closing: str) -> None:
    """cron and pagers close what they do not read: 1 would say that the package is bad."""
    shell = ("sh", "-c", f'"$@" {closing}', "sh")
    assert checkout.run("fetch", "nosuch", prefix=shell).status == 2


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP")])
def test_a_service_that_is_stopped_leaves_a_sentence(
    checkout: Checkout, number: signal.Signals, name: str, tmp_path: Path
) -> None:
    """Or the journal ends in the middle, and what was at work leaves its folders behind."""
    os.mkfifo(tmp_path / "bundle")
    process = checkout.popen("receive", str(tmp_path / "bundle"), "--unknown-signer", "--allow-unproven")
    assert process.stderr is not None
    with (tmp_path / "bundle").open("wb"):  # when it is opened, somebody reads
        process.send_signal(number)
        err = process.stderr.read()
        assert process.wait() == 128 + number
    assert f"Ended by {name}." in err
    assert "./inv receive" in err


CLEARING = """
import asyncio, os, signal, sys, threading, time
from pathlib import Path
from pipeline import cli
from pipeline.scratch import scratch
from pipeline.smoke.cancelling import to_the_end
for number in cli.ENDING:
    signal.signal(number, cli._end_by)
def send():
    time.sleep(0.3)
    for number in (signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)
        time.sleep(0.02)
async def clear():
    await asyncio.sleep(0.5)
    print("cleared up")
async def work():
    try:
        await asyncio.sleep(20)
    finally:
        await to_the_end(clear())
threading.Thread(target=send).start()
try:
    if sys.argv[1] == "asyncio":
        asyncio.run(work())
    else:
        with scratch(Path(sys.argv[2]), "x") as folder:
            for number in range(4000):
                (folder / str(number)).touch()
            time.sleep(20)
except KeyboardInterrupt:
    print("ended by", *(one.name for one in cli._ended))
"""


@pytest.mark.parametrize("how", ["asyncio", "scratch"])
def test_clearing_up_is_not_cut_short_by_the_second_signal(how: str, tmp_path: Path) -> None:
    """A session that ends sends SIGTERM and SIGHUP together: machines and gigabytes would stay behind."""
    command = [sys.executable, "-c", CLEARING, how, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=15)
    assert ended.stdout.splitlines()[-1] == "ended by SIGTERM", ended.stderr
    assert "cleared up" in ended.stdout or how == "scratch"
    assert list(tmp_path.iterdir()) == []
