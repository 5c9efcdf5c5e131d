"""A build that means harm: every way out that it tries is closed, under both engines."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.engine.job import DiskQuotaError, Engine, Job, JobFailedError, Limits, NetworkAttemptError
from tests import keys
from tests.conftest import Tiny
from tests.engine.conftest import Run, processes

pytestmark = pytest.mark.integration

PERL = """use Socket; socket(my $s, {family}, {kind}, 0) or die "socket: $!";"""
TCP6 = f"""perl -e 'use Socket qw(inet_pton pack_sockaddr_in6);
 {PERL.format(family="AF_INET6", kind="SOCK_STREAM")}
 connect($s, pack_sockaddr_in6(443, inet_pton(AF_INET6, "2001:db8::7")));'"""
UDP = f"""perl -e '{PERL.format(family="AF_INET", kind="SOCK_DGRAM")}
 send($s, "hello", 0, pack_sockaddr_in(7777, inet_aton("192.0.2.9")));'"""


@pytest.mark.parametrize(
    ("script", "who", "address"),
    [
        ("echo > /dev/tcp/192.0.2.1/80", "bash", "192.0.2.1 port 80"),
        # A static program, which no library that is laid under others would reach.
        ("/bin/busybox nc 192.0.2.1 80", "busybox", "192.0.2.1 port 80"),
        ("/bin/busybox nslookup name.example.org 192.0.2.53; sleep 9", "busybox", "192.0.2.53 port 53"),
        ("exec 3<> /dev/tcp/host.example.org/80", "bash", "the name host.example.org"),
        (TCP6, "perl", "[2001:db8:0:0:0:0:0:7] port 443"),
        (UDP, "perl", "192.0.2.9 port 7777"),
        ("(setsid bash -c 'sleep 0.2; echo > /dev/udp/192.0.2.1/9' &) ; sleep 5", "bash", "192.0.2.1 port 9"),
    ],
)
def test_an_attempt_to_use_the_network_ends_the_build_and_has_a_name(
    run: Run, out: Path, script: str, who: str, address: str
) -> None:
    """A build that goes on without what it wanted to download makes a package that lacks it."""
    start = time.monotonic()
    with pytest.raises(NetworkAttemptError) as caught:
        run(f"{script}\nsleep 0.3; echo survived; echo > output/file")
    assert caught.value.message == f"{who} wanted the network, which is off: {address}."
    assert who in (caught.value.hint or "").partition("\n")[0].removeprefix("The process was: ")
    assert "survived" not in (caught.value.hint or "")
    assert list(out.iterdir()) == []
    assert time.monotonic() - start < 30


def test_what_stays_on_the_machine_is_no_attempt(run: Run) -> None:
    """Programs' own tests talk to themselves, and ask for this machine's name."""
    lines = run(
        f"""perl -e '{PERL.format(family="AF_INET", kind="SOCK_STREAM")} use strict;
          setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1); bind($s, pack_sockaddr_in(4711, INADDR_LOOPBACK));
          listen($s, 1); if (!fork) {{ socket(my $c, AF_INET, SOCK_STREAM, 0);
          connect($c, getsockname($s)) or die; syswrite($c, "heard\n"); exit }}
          accept(my $a, $s); print <$a>;'
        perl -e 'use Socket; gethostbyname("xen-build"); gethostbyname("localhost"); print "asked\n"'
        perl -e '{PERL.format(family="AF_UNIX", kind="SOCK_STREAM")}
          connect($s, pack_sockaddr_un("/run/none")); print "none\n"'"""
    )
    assert lines == ["heard", "asked", "none"]


def test_the_guard_cannot_be_shaken_off(run: Run) -> None:
    """The guard is the job's own user's process: killing or tracing it must end the job, not the watch."""
    with pytest.raises(JobFailedError):
        run("kill -9 $PPID; sleep 1; echo > /dev/tcp/192.0.2.1/80; echo survived")
    # ptrace(PTRACE_ATTACH), and the memory, of the guard.
    lines = run(
        """perl -e 'print syscall(101, 16, $ARGV[0] + 0, 0, 0) < 0 ? "refused\n" : "traced\n"' $PPID
        (exec 3<> /proc/$PPID/mem) 2> /dev/null && echo opened || echo refused
        (: < /proc/$PPID/environ) 2> /dev/null && echo read || echo refused"""
    )
    assert lines == ["refused"] * 3


def syscall(number: int, *arguments: int) -> str:
    words = ", ".join(map(str, (number, *arguments)))
    return f"""perl -e 'print syscall({words}) < 0 ? "{number} refused\n" : "{number} done\n"'"""


def test_what_no_build_needs_is_refused(run: Run) -> None:
    """New namespaces bring capabilities back, io_uring goes round filters, keyrings hold others' keys."""
    calls = {
        "unshare(CLONE_NEWUSER)": (272, 0x10000000),
        "clone(CLONE_NEWUSER)": (56, 0x10000011, 0, 0, 0, 0),
        "setns": (308, 0, 0),
        "mount": (165, 0, 0, 0, 0, 0),
        "io_uring_setup": (425, 8, 0),
        "keyctl": (250, 0, -3, 0, 0, 0),
        "add_key": (248, 0, 0, 0, 0, 0),
        "bpf": (321, 0, 0, 0),
        "perf_event_open": (298, 0, 0, -1, -1, 0),
        "kexec_load": (246, 0, 0, 0, 0),
        "init_module": (175, 0, 0, 0),
        "settimeofday": (164, 0, 0),
        "reboot": (169, 0xFEE1DEAD, 672274793, 0, 0),
        "chroot": (161, 0),
    }
    # settimeofday without arguments does nothing, and may: it is asked for a time below.
    calls.pop("settimeofday")
    lines = run("\n".join(syscall(*arguments) for arguments in calls.values()))
    assert lines == [f"{arguments[0]} refused" for arguments in calls.values()]
    assert run("(date -s 2001-01-01 > /dev/null) 2>/dev/null && echo set || echo refused") == ["refused"]


def test_host_files_are_out_of_sight(run: Run, tmp_path: Path) -> None:
    """What a build can read it can put into a package: keys, tokens, other people's sources."""
    word = secrets.token_hex(8)
    secret = tmp_path / f"{word}.secret"
    secret.write_text(word)
    secret.chmod(0o644)
    places = [secret, Path("/proc/1/root") / secret.relative_to("/"), Path("/proc/1/cwd")]
    script = "\n".join(f"cat '{place}' 2> /dev/null" for place in places)
    found = run(
        f"""{script}
        find / -xdev -name '{word}*' 2> /dev/null
        cat /proc/*/environ 2> /dev/null | tr '\\0' '\\n'"""
    )
    assert not [line for line in found if word in line]


def test_the_signing_key_is_out_of_reach(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that can sign makes its own trust."""
    with keys.some() as four:
        key = four["mine"]
        monkeypatch.setenv("GNUPGHOME", str(key.home))
        monkeypatch.setenv("SSH_AUTH_SOCK", str(key.home / "S.gpg-agent"))
        lines = run(
            f"""for place in '{key.home}' "$HOME/.gnupg" /root/.gnupg "$GNUPGHOME" "$SSH_AUTH_SOCK"; do
              [[ -n $place && -e $place ]] && echo "$place"
            done
            find / -xdev \\( -name '*.key' -o -name 'S.gpg-agent*' -o -name 'pubring.kbx' \\) 2> /dev/null
            env | grep -i -e gpg -e ssh; true"""
        )
    assert [line for line in lines if "/usr/share/" not in line] == []


def test_other_processes_are_out_of_reach(run: Run) -> None:
    """A build that sees processes of the host can kill or trace those of its own user's number."""
    with subprocess.Popen(["sleep", "987601"], user=1000 if os.geteuid() == 0 else None) as victim:
        lines = run(
            f"""kill -9 {victim.pid} 2> /dev/null && echo killed
            perl -e 'print "traced\n" if syscall(101, 16, {victim.pid}, 0, 0) == 0'
            cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c '[s]leep 987601'
            ls -d /proc/[0-9]* | wc -l"""
        )
        assert victim.poll() is None
        victim.kill()
    assert lines[0] == "0"
    assert int(lines[1]) < 15


def test_devices_are_out_of_reach(run: Run) -> None:
    """A raw disk or /dev/kvm in a build is the host's."""
    lines = run(
        """ls /dev; for kind in 'b 8 0' 'c 1 1'; do
          for place in output /tmp /dev; do mknod $place/node $kind 2> /dev/null && echo made; done
        done
        (: < /dev/mem) 2> /dev/null && echo mem; true"""
    )
    allowed = {
        *("console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm"),
        *("stderr", "stdin", "stdout", "tty", "urandom", "zero"),
    }
    assert set(lines) <= allowed, set(lines) - allowed


@pytest.fixture
def abstract() -> Iterator[str]:
    """A UNIX socket of the host without a file, as session buses have."""
    name = f"xen-jail-{secrets.token_hex(4)}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        threading.Thread(target=lambda: server.accept(), daemon=True).start()
        yield name
        with socket.socket(socket.AF_UNIX) as end:
            end.connect(f"\0{name}")


def test_sockets_of_the_host_are_out_of_reach(run: Run, abstract: str) -> None:
    """Session buses and agents listen on sockets without a file, which file systems do not hide."""
    script = PERL.format(family="AF_UNIX", kind="SOCK_STREAM")
    lines = run(f"""perl -e '{script} print connect($s, pack_sockaddr_un("\\0{abstract}")) ? "in" : "out"'""")
    assert lines == ["out"]


def test_nothing_outside_the_build_folder_can_be_written(run: Run, engine: Engine) -> None:
    """The image is shared by all later builds."""
    lines = run(
        """for place in / /usr /etc /bin /lib /var /var/tmp /opt /srv /home /root /sys /proc/sys/kernel; do
          (: > "$place/planted") 2> /dev/null && echo "$place"
          chmod o+w "$place" 2> /dev/null && echo "chmod $place"
        done
        mount -o remount,rw / 2> /dev/null && echo remounted
        ln /etc/passwd /build/passwd 2> /dev/null && echo linked; true"""
    )
    assert lines == []


def test_files_beyond_the_quota_end_the_build(run: Run, tmp_path: Path) -> None:
    """A build that runs wild would fill the disk of everybody else on this host."""
    limits = Limits(disk=64 << 20)
    many = "for n in $(seq 40); do head -c 8M /dev/zero > part$n; sleep 0.1; done; echo all"
    with pytest.raises(DiskQuotaError, match=r"may have 64\.0 MiB"):
        run(many, limits)
    with pytest.raises((DiskQuotaError, JobFailedError)):  # by RLIMIT_FSIZE, or by the quota
        run("dd if=/dev/zero of=one bs=1M count=200 status=none && echo all", limits)
    assert run("dd if=/dev/zero of=one bs=1M count=20 status=none && echo all", limits) == ["all"]


def test_what_others_free_does_not_hide_what_a_build_takes(run: Run, tmp_path: Path) -> None:
    """If this fails, a build runs wild whenever somebody else cleans up on its disk."""
    for number in range(8):
        (tmp_path / str(number)).write_bytes(bytes(32 << 20))

    def clean() -> None:
        for number in range(8):
            time.sleep(0.3)
            (tmp_path / str(number)).unlink()

    cleaner = threading.Thread(target=clean)
    cleaner.start()
    try:
        with pytest.raises(DiskQuotaError, match=r"may have 64\.0 MiB"):
            run(
                "for n in $(seq 10); do head -c 8M /dev/zero > part$n; sleep 0.25; done",
                Limits(disk=64 << 20),
            )
    finally:
        cleaner.join()


def test_temporary_files_count_as_memory(run: Run) -> None:
    """/tmp is memory: a build that fills it would take the host's."""
    with pytest.raises(Exception, match=r"exit status|memory"):
        run("dd if=/dev/zero of=/tmp/x bs=1M count=300 status=none && echo all", Limits(memory=256 << 20))


def test_nothing_is_left_running(run: Run) -> None:
    """What outlives its build could change it, or the next one."""
    run("(setsid nohup sleep 987602 > /dev/null 2>&1 &); sleep 0.2")
    run("(trap '' TERM HUP INT; exec setsid sleep 987603 > /dev/null 2>&1) & sleep 0.2")
    assert processes("sleep 98760") == []


def test_a_command_that_is_not_there_has_a_name(engine: Engine, tiny: Tiny, out: Path) -> None:
    """The guard must not take the end of what never started for a fault of its own."""
    lines: list[str] = []
    with pytest.raises(JobFailedError, match="exit status 127"):
        engine.run(Job(("/bin/not-there",)), tiny.image, out, lines.append)
    assert "/bin/not-there: No such file or directory" in lines
