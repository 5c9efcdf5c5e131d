"""What both engines promise to every job, seen from inside the job and from the host."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.engine.job import (
    Engine,
    Job,
    JobFailedError,
    Limits,
    OutOfMemoryError,
    OutputError,
)
from pipeline.errors import TimeLimitError
from tests import servers
from tests.engine.conftest import Run, processes

pytestmark = pytest.mark.integration


def test_jobs_are_nobody(run: Run) -> None:
    """A hostile build could otherwise do to the host what root or any capability may."""
    lines = run("id -u; id -g; id -G; grep -E '^(Cap|NoNewPrivs)' /proc/self/status")
    assert lines[:3] == ["1000", "1000", "1000"]
    status = dict(line.split(":\t") for line in lines[3:])
    assert status.pop("NoNewPrivs") == "1"
    assert set(status.values()) == {"0" * 16}, status


def test_jobs_see_the_same_world(run: Run) -> None:
    """What differs between engines or leaks from the caller makes packages differ."""
    lines = run("hostname; umask; pwd; env; ls -la /build | grep -v ' \\.\\.$'; ls -ld /proc/1 > /dev/null")
    assert lines[:3] == ["xen-build", "0022", "/build"]
    shell = ("PWD=", "SHLVL=", "_=", "OLDPWD=", "HOSTNAME=")
    names = {line for line in lines[3:] if "=" in line and not line.startswith(shell)}
    assert names == {f"{key}={value}" for key, value in Job.BASE_ENVIRONMENT.items()}
    assert sum("builder builder" in line for line in lines) == 3, lines


def test_jobs_write_to_the_workspace_only(run: Run, out: Path) -> None:
    """A build that changes the image would change every later build."""
    lines = run(
        """for place in /x /usr/x /etc/x /bin/x /dev/x /sys/x /proc/x /var/tmp/x /var/lib/x; do
          if (: > "$place") 2> /dev/null; then echo "$place"; fi
        done
        if (echo >> /etc/passwd) 2> /dev/null; then echo passwd; fi
        touch /tmp/fine /run/fine /build/fine /dev/shm/fine
        mkdir -p output/folder && echo kept > output/folder/file
        chmod 0 output/folder/file output/folder"""
    )
    assert lines == []
    assert (out / "folder" / "file").read_text() == "kept\n"


def test_jobs_have_no_network(run: Run, server: servers.Server) -> None:
    """A build that may download something is a build that nobody can repeat."""
    server.add("/from-a-job", servers.good(b"no"))
    port = server.root.rpartition(":")[2]
    before = len(server.requests)
    with pytest.raises(JobFailedError):
        run(f"exec 3<> /dev/tcp/127.0.0.1/{port} && printf 'GET /from-a-job HTTP/1.0\\r\\n\\r\\n' >&3")
    assert [line for line in run("cat /proc/net/dev") if ":" in line and "lo:" not in line] == []
    assert len(server.requests) == before


def test_memory_is_limited(run: Run, engine: Engine) -> None:
    """A build that runs wild would take the whole host down, or be taken for one that does not compile."""
    # Under bubblewrap an allocation fails and the job says so itself; docker kills, and must tell why.
    expected = OutOfMemoryError if engine.name == "docker" else JobFailedError
    with pytest.raises(expected):
        run("""exec perl -e '$x = "a" x (1 << 29); print length $x'""", Limits(memory=256 << 20))
    assert run("""perl -e '$x = "a" x (1 << 24); print length $x'""", Limits(memory=256 << 20)) == [
        "16777216"
    ]


def test_processes_and_files_are_limited(run: Run) -> None:
    """A fork bomb in a build would take the whole host down."""
    script = r"""ulimit -n; ulimit -c
    exec perl -e 'for (1 .. 300) { $p = fork; if (!defined $p) { print "limited\n"; last }
                                   if (!$p) { sleep 5; exit } }'"""
    assert run(script, Limits(processes=100, files=77)) == ["77", "0", "limited"]


def test_a_time_limit_ends_all(run: Run) -> None:
    """A build that hangs would otherwise hang for good, or leave processes that eat the host."""
    start = time.monotonic()
    with pytest.raises(TimeLimitError, match="2 s"):
        run("setsid sleep 98761 & sleep 98762 & echo said; wait", Limits(seconds=2))
    assert time.monotonic() - start < 20
    assert processes("sleep 9876") == []


@contextlib.contextmanager
def busy_processors() -> Iterator[None]:
    """What ends takes longer to do so."""
    busy = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(8)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_what_a_job_leaves_running_ends_with_it(run: Run) -> None:
    """Otherwise what a build started could change its output after it was taken."""
    with busy_processors():
        for _ in range(5):
            run("for n in $(seq 40); do setsid sleep 98763 > /dev/null 2>&1 & done; echo started")
            assert processes("sleep 98763") == []


def test_a_failure_shows_the_last_lines(run: Run) -> None:
    """Without them users must search a long log for every failure."""
    with pytest.raises(JobFailedError, match="exit status 7") as caught:
        run("seq 1 200; exit 7")
    assert (caught.value.hint or "").splitlines() == [str(n) for n in range(151, 201)]
    with pytest.raises(JobFailedError) as caught:
        run("echo said; exit 7")
    assert caught.value.hint == "said"


@pytest.mark.parametrize(
    "trick",
    [
        "ln -s /etc/passwd output/staging.tar",
        "ln -s script output/link",
        "rmdir output && ln -s /etc output",
        "rmdir output && ln -s /build/in output",
        "rmdir output && echo > output",
        "rmdir output",
        "mkfifo output/staging.tar",
        "touch output/one && ln output/one output/two",
        "mkdir output/a && ln -s /etc/shadow output/a/b",
    ],
)
def test_outputs_with_tricks_are_refused(run: Run, out: Path, trick: str) -> None:
    """A hostile build could otherwise make the pipeline read, and publish, a file of the host."""
    with pytest.raises(OutputError):
        run(trick)
    for path in out.rglob("*"):
        assert path.is_dir() or path.read_bytes() == b"", path


def test_hostile_names_stay_inside(run: Run, out: Path) -> None:
    """A file name that a host program misreads could end up anywhere."""
    run("cd output && touch -- '-rf' $'new\\nline' '...' 'a\\b' $'\\xff' && chmod 6777 -- -rf")
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["-rf", "new\nline", "...", "a\\b", "\udcff"]
    )
    assert (out / "-rf").stat().st_mode & 0o7022 == 0


def test_a_cache_is_left_from_job_to_job_and_nothing_else_is(run: Run, tmp_path: Path) -> None:
    """Without it every night compiles everything; with a second way out, a build could reach the host."""
    cache = tmp_path / "caches" / "one"
    assert run("echo fine > ccache/note; echo other > note; ls ccache", cache=cache) == ["note"]
    assert run("cat ccache/note; id -u; touch ccache/note; ls", cache=cache) == [
        *("fine", "1000", "ccache", "in", "output"),
    ]
    assert run("ls ccache", cache=tmp_path / "caches" / "two") == []
    assert "ccache" not in run("ls")


def test_a_deep_folder_in_the_output_is_refused_and_removed(run: Run, tmp_path: Path) -> None:
    """A hostile build could otherwise leave what no later command can remove."""
    with pytest.raises(OutputError, match="deep/deep"):
        run("cd output; perl -e 'for (1..3000) { mkdir q(deep); chdir q(deep) or die }'")
    assert run("echo again") == ["again"]
    assert not (tmp_path / "scratch").exists() or list((tmp_path / "scratch").iterdir()) == []
