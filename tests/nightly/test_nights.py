"""Nights with everything that goes wrong in a year: no state is ever half, and no night is lost."""

from __future__ import annotations

import datetime
import json
import random
import resource
import signal
import subprocess
import sys

import msgspec
import pytest

from pipeline import build as builds
from pipeline.errors import HostError
from pipeline.nightly.night import Night, Outcome
from pipeline.nightly.watch import HEARTBEAT, NIGHTS, RECORD
from tests.nightly.machine import Site


def test_a_good_night_then_nothing_new(site: Site) -> None:
    """Otherwise the same commit is built every night, or a new one never."""
    first = site.night()
    assert (first.outcome, first.outcome.status) == (Outcome.GOOD, 0)
    assert first.version.startswith("1.0.r1.g")
    assert first.figures.warnings == 1
    assert site.good() == first.commit
    again = site.night("build red")
    assert (again.outcome, again.outcome.status) == (Outcome.NOTHING, 0)
    assert "night 1 found good" in again.note
    site.commit("second")
    second = site.night()
    assert (second.outcome, second.version[:7]) == (Outcome.GOOD, "1.0.r2.")
    assert [change.subject for change in second.changes] == ["x86/mm: second"]
    record = site.nightly.folder / NIGHTS / "3" / RECORD
    assert msgspec.json.decode(record.read_bytes(), type=Night) == second


def test_a_red_night_says_where_why_and_who(site: Site) -> None:
    """Without it, somebody reads ten thousand lines of log every morning."""
    good = site.night()
    site.commit("harmless", "docs/page")
    site.commit("culprit")
    red = site.night("build red")
    assert (red.outcome, red.outcome.status) == (Outcome.RED, 1)
    assert red.trouble is not None
    assert "'page' undeclared" in red.trouble.error
    assert (red.trouble.file, red.trouble.area) == ("xen/arch/x86/mm.c", "xen/arch/x86")
    assert [change.subject for change in red.suspects] == ["x86/mm: culprit"]
    assert [change.subject for change in red.changes] == ["x86/mm: culprit", "x86/mm: harmless"]
    assert red.stages[0].attempts == 2
    assert site.good() == good.commit
    assert site.night().outcome is Outcome.NOTHING


def test_only_what_is_green_is_published(site: Site) -> None:
    """Users of the unstable channel would get what does not boot, or nothing ever again."""
    assert site.night().published
    site.commit("second")
    red = site.night("smoke red")
    assert not red.published
    assert "publish" not in [stage.name for stage in red.stages]
    site.commit("third")
    unpublished = site.night("publish host")
    assert (unpublished.outcome, unpublished.published) == (Outcome.INFRASTRUCTURE, False)
    assert unpublished.note.startswith("publish ended with exit status 3")
    assert site.night().published
    site.commit("fourth")
    kept = site.night(publish=False)
    assert (kept.outcome, kept.published) == (Outcome.GOOD, False)


def test_the_full_tier_is_done_once_a_day(site: Site) -> None:
    """It takes long: where nights are hourly it would take all of them; and its red nights are as red."""
    site.host = True
    assert [stage.name for stage in site.night().stages] == [
        *("build", "check", "smoke", "host", "publish"),
    ]
    site.commit("second")
    site.now -= datetime.timedelta(hours=18)
    assert "host" not in [stage.name for stage in site.night().stages]
    site.commit("third")
    red = site.night("host red")
    assert red.outcome is Outcome.RED
    assert red.trouble is not None
    assert (red.trouble.step, red.trouble.case) == ("host", "grub-xl-list")
    assert (site.nightly.folder / NIGHTS / "3" / "host" / "results.json").is_file()


def test_a_night_that_is_not_reproducible_says_what_differs(site: Site) -> None:
    """A compile's log that names no error would be all that a maintainer reads in the morning."""
    red = site.night("reproduce red", steps=("check", "reproduce"))
    assert red.outcome is Outcome.RED
    assert red.trouble is not None
    assert (red.trouble.step, red.trouble.log) == ("reproduce", "reproduce/explanation.txt")
    assert (site.nightly.folder / NIGHTS / str(red.number) / red.trouble.log).is_file()
    assert red.trouble.error == "x.pkg.tar.xz: boot/xen.gz//: Xen's banner (xen-banner). And 1 more."


def test_a_flake_passes_and_is_counted(site: Site) -> None:
    """A test bed that fails now and then must not turn nights red, nor go unseen."""
    night = site.night("smoke red 1")
    assert night.outcome is Outcome.GOOD
    assert night.figures.flakes == 1
    assert [stage.name for stage in night.stages if stage.flaky] == ["smoke"]


def test_a_step_that_hangs_is_ended(site: Site) -> None:
    """Otherwise one night takes all that come after it."""
    night = site.night("check hang", limits={"check": 0.01})
    assert night.outcome is Outcome.INFRASTRUCTURE
    assert night.stages[-1].status is None
    assert site.good() is None


def test_one_run_at_a_time(site: Site) -> None:
    """Two would build into one folder; the second is told who is at work."""
    site.night()
    site.commit("second")
    (site.folder / "faults").write_text("check hang")
    # Kept in a variable: a lock that nobody holds on to is let go.
    code = (
        "import sys, time, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire();"
        "print('ok', flush=True); time.sleep(60)"
    )
    lock = site.nightly.folder / ".nightly.lock"
    with subprocess.Popen([sys.executable, "-c", code, lock], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(HostError, match="Another nightly run is at work: process"):
            site.nightly.run()
        other.kill()
    assert site.night().outcome is Outcome.GOOD


def test_a_killed_night_is_seen_and_done_again(site: Site) -> None:
    """A machine that goes down every night at three must not look like one that is fine."""
    first = site.night()
    site.commit("second")
    site.killed("smoke hang")
    assert site.good() == first.commit
    assert site.nightly.book.nights()[0].outcome is Outcome.RUNNING
    assert site.night().outcome is Outcome.GOOD
    assert [n.outcome for n in site.nightly.book.nights()] == [Outcome.GOOD, Outcome.KILLED, Outcome.GOOD]


def test_the_hook_gets_the_record(site: Site) -> None:
    """It is how anybody hears of a red night; one that fails must not change the outcome."""
    told = site.folder / "told"
    night = site.night(notify=("sh", "-c", f"cat > '{told}'; exit 1"))
    assert night.outcome is Outcome.GOOD
    assert json.loads(told.read_text())["lock"]["commit"] == night.commit


def test_versions_go_up_even_when_upstream_rewrites_its_history(site: Site) -> None:
    """pacman would never update to a package with a lower version."""
    for text in ("second", "third", "fourth"):
        site.commit(text)
    before = site.night()
    site.upstream.git("reset", "--quiet", "--hard", "HEAD~2")
    site.commit("instead")
    after = site.night()
    assert after.rewritten
    assert before.lock is not None
    assert after.lock is not None
    assert (before.lock.count, after.lock.count) == (4, 5)
    assert [change.subject for change in after.changes] == ["x86/mm: instead"]


def test_old_builds_make_room_but_never_the_last_good(site: Site) -> None:
    """The disk would be full after a month; and users must always have something to install."""
    good = site.night()
    for number in range(4):
        site.commit(f"broken {number}")
        assert site.night("smoke red", budget=0).outcome is Outcome.RED
    kept = {build.folder.name for build in builds.every(site.nightly.folder)}
    assert good.build_id in kept
    assert len(kept) == 2  # and the newest
    assert site.good() == good.commit


def test_a_write_that_fails_leaves_the_history_whole(site: Site) -> None:
    """The disk fills up in the middle of a night: what is known of all others must survive."""
    first = site.night()
    site.commit("second")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
        with pytest.raises(OSError, match=r"File too large|history of nights"):
            site.night()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert site.good() == first.commit
    assert site.night().outcome is Outcome.GOOD


@pytest.mark.integration
def test_thirty_nights(site: Site) -> None:
    """Whatever happens: every night is accounted for, and the last good one can be installed."""
    chance = random.Random(8)
    kinds = [
        *("fine", "fine", "nothing", "network", "full", "room"),
        *("killed", "clock", "rewrite", "engine", "red", "flake"),
    ]
    plan = [*kinds, *kinds, *chance.choices(kinds, k=6)]
    chance.shuffle(plan)
    good: str | None = None
    for number, kind in enumerate(plan, start=1):
        if kind != "nothing":
            site.commit(f"{kind} {number}")
        expected = {Outcome.GOOD}
        match kind:
            case "network":
                site.upstream.folder.rename(site.folder / "away")
                night = site.night()
                (site.folder / "away").rename(site.upstream.folder)
                expected = {Outcome.INFRASTRUCTURE}
            case "full":
                night, expected = site.night("build full"), {Outcome.INFRASTRUCTURE}
            case "room":
                night, expected = site.night(free=1e9), {Outcome.INFRASTRUCTURE}
            case "engine":
                night, expected = site.night("smoke host"), {Outcome.INFRASTRUCTURE}
            case "red":
                night, expected = site.night("check red"), {Outcome.RED}
            case "flake":
                night = site.night("build host 1")
            case "killed":
                site.killed(chance.choice(["build hang", "check hang"]))
                assert site.good() == good
                assert site.nightly.book.nights()[0].outcome is Outcome.RUNNING
                continue
            case "clock":
                site.now += datetime.timedelta(days=chance.choice([-4000, 4000]))
                night = site.night()
            case "rewrite":
                site.upstream.git("reset", "--quiet", "--hard", "HEAD~1")
                site.commit(f"rewritten {number}")
                night = site.night()
            case "nothing":
                # What was not judged yet is built now.
                night, expected = site.night(), {Outcome.NOTHING, Outcome.GOOD}
            case _:
                night = site.night()
        assert night.outcome in expected, (number, kind, night.note)
        if night.outcome is Outcome.GOOD:
            good = night.commit
        assert site.good() == good, (number, kind)
    nights = site.nightly.book.nights()
    assert [night.number for night in nights] == list(range(30, 0, -1))
    assert Outcome.RUNNING not in {night.outcome for night in nights[1:]}
    versions = [n.lock.count for n in reversed(nights) if n.outcome is Outcome.GOOD and n.lock is not None]
    assert versions == sorted(versions)
    assert (site.nightly.folder / HEARTBEAT).exists()
