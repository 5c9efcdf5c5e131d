"""Packages are sent to real sshds, over links that break."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import HostError, UsageError
from pipeline.transfer import remote
from pipeline.transfer.send import SendError, load, send
from tests import builds, checkouts
from tests.checkouts import Checkout
from tests.transfer import sshd
from tests.transfer.sshd import Target

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="sshd runs as root"),
]
Start = Callable[..., Target]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start machines; all that a test has started are in the user's ssh configuration."""
    keys = sshd.make_keys(tmp_path / "keys")
    targets: list[Target] = []

    def make(name: str, *, up: bool = True, **options: object) -> Target:
        target = Target(name, tmp_path / name, sshd.free_port(), **options)  # type: ignore[arg-type]
        target.prepare()
        targets.append(target)
        sshd.configure(keys, targets)
        if up:
            target.start(keys)
        return target

    with sshd.use_configuration(keys / "config", tmp_path / "path"):
        yield make
    for target in targets:
        target.stop()


def parcel(tmp_path: Path, size: int = 3 << 20) -> list[Path]:
    """Two packages; the first has that many bytes that cannot be compressed."""
    build = builds.make(tmp_path / "build", contents={"usr/share/small/data": secrets.token_bytes(size)})
    return build.packages


def as_sent(paths: list[Path]) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in paths}


def test_packages_arrive_verified_and_are_installed(start: Start, tmp_path: Path) -> None:
    target = start("dom0")
    paths = parcel(tmp_path)
    cargo = load(paths, tmp_path)
    said = send(cargo, ["dom0"], install=True, smoke=True)
    assert "verified, installed, looked at" in said
    assert target.sent() == as_sent(paths)
    assert (target.root / "usr/share/small/data").stat().st_size == 3 << 20
    assert "there already" in send(cargo, ["dom0"])


def test_one_dead_host_does_not_stop_the_others(start: Start, tmp_path: Path) -> None:
    alive = [start("one"), start("two")]
    start("dead", up=False)
    paths = parcel(tmp_path)
    with pytest.raises(SendError, match="failed for dead") as raised:
        send(load(paths, tmp_path), ["one", "dead", "two"])
    assert raised.value.status == 3
    assert "cannot be reached" in str(raised.value.hint)
    assert [target.sent() for target in alive] == [as_sent(paths)] * 2


def test_what_the_machine_refuses_is_said_once(start: Start, tmp_path: Path) -> None:
    """Five tries at a broken connection that is none would hide whose fault it is."""
    target = start("dom0")
    target.tool("dd", "echo 'dd: failed to open: Permission denied' >&2; exit 1")
    with pytest.raises(SendError) as raised:
        send(load(parcel(tmp_path), tmp_path), ["dom0"])
    assert "dom0 refused: dd: failed to open: Permission denied" in str(raised.value.hint)


def test_packages_go_in_the_order_in_which_they_are_hashed(start: Start, tmp_path: Path) -> None:
    """The machine would give up the hash of a file that comes after all others, on a slow line."""
    target = start("dom0")
    target.tool("dd", f'echo "$1" >> {tmp_path}/order; exec /bin/dd "$@"')
    paths = parcel(tmp_path)[::-1]
    assert paths != sorted(paths)
    send(load(paths, tmp_path), ["dom0"])
    assert target.sent() == as_sent(paths)
    order = [line.rpartition("/")[2] for line in (tmp_path / "order").read_text().splitlines()]
    assert order == sorted(path.name for path in paths)


def test_another_architecture_is_refused_before_anything_is_sent(start: Start, tmp_path: Path) -> None:
    target = start("dom0")
    target.tool("uname", "echo aarch64")
    path = tmp_path / "xen-4.17.4-1-x86_64.pkg.tar.xz"
    path.write_bytes(builds.package("xen", "4.17.4-1", arch="x86_64"))
    with pytest.raises(SendError) as raised:
        send(load([path], tmp_path), ["dom0"])
    assert "architecture is aarch64, and the packages are for x86_64" in str(raised.value.hint)
    assert list(target.home.iterdir()) == []


@pytest.mark.parametrize("tool", ["pacman", "sha256sum", "dd"])
def test_a_machine_without_a_tool_that_is_needed_is_named(start: Start, tmp_path: Path, tool: str) -> None:
    target = start("dom0", without=(tool,))
    (target.tools / tool).unlink(missing_ok=True)
    with pytest.raises(SendError) as raised:
        send(load(parcel(tmp_path), tmp_path), ["dom0"])
    assert f"It has no {tool}" in str(raised.value.hint)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "small", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_is_too_small_is_noticed_before_anything_is_sent(start: Start, tmp_path: Path) -> None:
    target = start("dom0")
    with small_disk(target.home, "2M"):
        with pytest.raises(SendError) as raised:
            send(load(parcel(tmp_path), tmp_path), ["dom0"])
        assert "are needed" in str(raised.value.hint)
        assert target.unverified() == 0


def test_a_disk_that_fills_up_meanwhile_is_said(start: Start, tmp_path: Path) -> None:
    target = start("dom0")
    target.tool("df", "echo head; echo dev 1 1 99999999 1% /")
    with small_disk(target.home, "2M"):
        with pytest.raises(SendError) as raised:
            send(load(parcel(tmp_path), tmp_path), ["dom0"])
        assert "no space left" in str(raised.value.hint)
        assert target.sent() == {}


def test_what_is_wrong_on_the_other_side_is_noticed_and_sent_anew(start: Start, tmp_path: Path) -> None:
    """A prefix of other bytes, as a disk or an earlier sender may leave it."""
    target = start("dom0")
    paths = parcel(tmp_path)
    cargo = load(paths, tmp_path)
    part = target.home / f"{cargo.folder}.part"
    part.mkdir(parents=True)
    (part / paths[0].name).write_bytes(b"rubbish" * 1000)
    (part / paths[1].name).write_bytes(paths[1].read_bytes() + b"too long")
    send(cargo, ["dom0"])
    assert target.sent() == as_sent(paths)


def test_a_package_that_is_damaged_here_is_said_so_and_sent_once_only(start: Start, tmp_path: Path) -> None:
    """Nobody should look for a broken line where the sender's own disk is to blame.

    It is the target's hash that tells: nothing here reads a build's packages but to send them.
    """
    target = start("dom0")
    checkout = Checkout(checkouts.copy(tmp_path / "checkout"), tmp_path / "store")
    build = builds.make(checkout.artifacts / "4.17" / "0123456789abcdef")
    (build.folder.parent / "latest").symlink_to(build.folder.name)
    path = build.packages[0]
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    said = checkout.run("send", "dom0", "--packages", "4.17").failed(3).err
    assert f"{path} is damaged here" in said
    assert target.sent() == {}
    path.write_bytes(data)
    assert "verified" in checkout.run("send", "dom0", "--packages", "4.17").fine().out
    assert target.sent() == as_sent(build.packages)


def test_hashing_for_a_sender_that_is_gone_ends(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each broken transfer would leave a shell behind that looks at a file for ever."""
    start("dom0")
    monkeypatch.setattr(remote, "_HASH", remote._HASH.replace(str(remote._IDLE * remote._LOOKS), "5"))
    machine = remote.Remote("dom0", "xen-packages/x", tmp_path / "ssh")
    with (
        machine.hashing({"never.sent": 1}) as hashes,
        pytest.raises(remote.BrokenError, match="did not hash"),
    ):
        # Not with the hash of what is there: it would be taken for damage, and removed.
        hashes()
    machine.close()


def test_a_machine_that_takes_nothing_counts_as_broken(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sshd answers keep-alives for as long as one likes: only the bytes tell."""
    target = start("dom0")
    target.tool("dd", "exec /bin/sleep 60")
    monkeypatch.setattr(remote, "_STALLED", 1)
    machine = remote.Remote("dom0", "xen-packages/x", tmp_path / "ssh")
    (tmp_path / "file").write_bytes(bytes(32 << 20))
    with pytest.raises(remote.BrokenError, match="taken nothing for 1 s"):
        machine.write(tmp_path / "file", 0, lambda count: None)
    machine.close()


def test_files_that_changed_after_they_were_verified_are_sent_again(start: Start, tmp_path: Path) -> None:
    target = start("dom0")
    paths = parcel(tmp_path)
    cargo = load(paths, tmp_path)
    send(cargo, ["dom0"])
    (target.home / cargo.folder / paths[0].name).write_bytes(b"x")
    send(cargo, ["dom0"])
    assert target.sent() == as_sent(paths)


SCRIPT = """
import sys; from pathlib import Path; from pipeline.transfer.send import load, send
paths = [Path(p) for p in sys.argv[2:]]
print(send(load(paths, paths[0].parent), [sys.argv[1]]))
"""


@pytest.fixture
def slow(start: Start, tmp_path: Path) -> Iterator[Callable[..., Target]]:
    """A machine in a network namespace, behind a slow link that loses packets."""
    name = f"x{secrets.token_hex(3)}"
    third = secrets.randbelow(250)

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    def make(rate: str, loss: float, **options: object) -> Target:
        ip("netns", "add", name)
        ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        ip("addr", "add", f"10.213.{third}.1/30", "dev", f"{name}a")
        ip("link", "set", f"{name}a", "up")
        ip("-n", name, "addr", "add", f"10.213.{third}.2/30", "dev", f"{name}b")
        ip("-n", name, "link", "set", f"{name}b", "up")
        netem = ["netem", "rate", rate, "delay", "10ms", "loss", f"{loss}%"]
        shape = ["tc", "qdisc", "add", "dev", f"{name}a", "root"]
        if subprocess.run([*shape, *netem], check=False, capture_output=True).returncode != 0:
            # A kernel without netem: a token bucket is as slow, and the other side drops packets.
            subprocess.run([*shape, "tbf", "rate", rate, "burst", "32k", "latency", "50ms"], check=True)
            drop = ["-m", "statistic", "--mode", "random", "--probability", str(loss / 100), "-j", "DROP"]
            subprocess.run(["ip", "netns", "exec", name, "iptables", "-A", "INPUT", *drop], check=True)
        return start("far", namespace=name, address=f"10.213.{third}.2", **options)

    yield make
    subprocess.run(["ip", "link", "del", f"{name}a"], check=False, capture_output=True)
    subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def test_a_sender_killed_in_the_middle_goes_on_where_it_stopped(
    slow: Callable[..., Target], tmp_path: Path
) -> None:
    target = slow("16mbit", 0.5)
    paths = parcel(tmp_path, 6 << 20)
    command = [sys.executable, "-c", SCRIPT, "far", *map(str, paths)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while target.unverified() < 1 << 20:
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.kill()
    first.communicate()
    time.sleep(1)  # what is on its way still comes in
    there = target.unverified()
    second = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "goes on after" in second.stderr
    assert target.sent() == as_sent(paths)
    size = sum(path.stat().st_size for path in paths)
    assert size - there < size - (1 << 19)


def test_a_connection_that_breaks_is_taken_up_again(slow: Callable[..., Target], tmp_path: Path) -> None:
    target = slow("16mbit", 0.5)
    paths = parcel(tmp_path, 4 << 20)
    cargo = load(paths, tmp_path)
    said = []

    def sending() -> None:
        said.append(send(cargo, ["far"]))

    thread = threading.Thread(target=sending)
    thread.start()
    deadline = time.monotonic() + 60
    while target.unverified() < 1 << 20:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    # The sessions of this sshd, of which its first process is the parent.
    assert target.process is not None
    subprocess.run(["pkill", "-KILL", "-P", str(target.process.pid)], check=True)
    thread.join(90)
    assert said
    assert "verified" in said[0]
    assert target.sent() == as_sent(paths)


@pytest.mark.parametrize("host", ["-oProxyCommand=evil", "a b", "host;reboot", "", "user@", "$(x)"])
def test_a_host_that_is_an_option_or_a_command_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(UsageError, match="is not"):
        send(load(parcel(tmp_path, 10), tmp_path), [host])


ANSWERS = st.lists(st.sampled_from(["uid 0", "free 5", "size a 3", "uid x", "tool dd"]))


@given(st.text() | ANSWERS.map("\n".join))
def test_whatever_a_machine_answers_is_understood_or_refused(text: str) -> None:
    try:
        probe = remote.parse_probe("host", text, ["a"])
    except HostError:
        return
    assert probe.sizes["a"] >= 0
