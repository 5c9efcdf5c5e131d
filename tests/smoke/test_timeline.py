"""The phases of a boot, out of its serial log."""

from __future__ import annotations

import io
import itertools

from hypothesis import given
from hypothesis import strategies as st

from pipeline.smoke.serial import SerialWatcher
from pipeline.smoke.timeline import Phase, Stage, phases, read_log

DIRECT = """\
[     1.881]  Xen 4.17.5
[     1.881] (XEN) Xen version 4.17.5 (xen@aur) (gcc 12) debug=n Thu Nov 13 16:58:23 UTC 2025
[     7.100] (XEN) *** Serial input to DOM0 (type 'CTRL-a' three times to switch input)
[     7.412] (XEN) Freed 668kB init memory
[     7.622] mapping kernel into physical memory
[    14.000] smoke: first process
[    15.500] smoke: services
[    16.000] smoke: xenfs: 0
[    19.250] smoke: services: done
[    30.000] (XEN) Hardware Dom0 halted: halting machine
"""
HOST = """\
[     0.410] SeaBIOS (version 1.16.2-debian-1.16.2-1)
[     2.000]   Booting `Arch Linux, with Xen hypervisor'
[     2.100] Loading Xen 4.17.5 ...
[     2.200] Loading Linux 6.1.0-50-amd64 ...
[     3.000] (XEN) Xen version 4.17.5 (xen@aur) (gcc 12) debug=n Thu Nov 13 16:58:23 UTC 2025
[     6.000] (XEN) Xen is relinquishing VGA console.
[     6.300] [    0.000000] Linux version 6.1.0-50-amd64 (debian-kernel@lists.debian.org)
[    12.000] [    5.1] systemd[1]: systemd 252.39 running in system mode
[    20.000]          Starting xenstored.service - The Xen xenstore...
[    29.000] [  OK  ] Reached target multi-user.target - Multi-User System.
[    29.500] smoke login:
"""


def times(text: str) -> list[tuple[str, float, float]]:
    return [(p.stage.title, p.begin, p.end) for p in phases(read_log(text))]


def test_direct_boot() -> None:
    """If this fails, the page shows a boot's time at the wrong part of it."""
    assert times(DIRECT) == [
        ("firmware", 0.0, 1.881),
        ("Xen", 1.881, 7.1),
        ("dom0 kernel", 7.1, 14.0),
        ("userspace", 14.0, 15.5),
        ("services", 15.5, 19.25),
    ]


def test_boot_through_firmware_and_grub() -> None:
    """If this fails, what GRUB says that it loads is taken for what runs."""
    assert times(HOST) == [
        ("firmware", 0.0, 3.0),
        ("Xen", 3.0, 6.0),
        ("dom0 kernel", 6.0, 12.0),
        ("userspace", 12.0, 20.0),
        ("services", 20.0, 29.0),
    ]


def test_boot_that_breaks_off_ends_with_its_last_line() -> None:
    """If this fails, a boot that hung looks as if it had not begun."""
    broken = "".join(DIRECT.splitlines(keepends=True)[:5])
    assert times(broken)[-1] == ("dom0 kernel", 7.1, 7.622)
    assert times("") == [("firmware", 0.0, 0.0)]


def test_guests_words_are_not_the_hosts() -> None:
    """If this fails, a guest that boots later moves the phases of dom0."""
    text = "[     1.000] (XEN) Xen version 4.17.5 (x)\n[     2.000] (d1) Linux version 6.1\n"
    assert [stage for stage, *_ in times(text)] == ["firmware", "Xen"]


MARKS = st.sampled_from(
    ["(XEN) Xen version 4.17", "Linux version 6", "smoke: xenfs: 0", "smoke: services: done"]
)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.one_of(st.text(), MARKS))))
def test_phases_of_any_log_are_in_order_and_leave_no_gap(lines: list[tuple[float, str]]) -> None:
    """If this fails, some log makes a plot with bars over each other, or breaks the page."""
    text = "".join(f"[{seconds:10.3f}] {line}\n" for seconds, line in lines)
    found = phases(read_log(text))
    assert found[0] == Phase(Stage.FIRMWARE, 0.0, found[0].end)
    order = list(Stage)
    for one, other in itertools.pairwise(found):
        assert one.end == other.begin
        assert order.index(one.stage) < order.index(other.stage)
    assert all(phase.seconds >= 0 for phase in found)


@given(st.lists(st.tuples(st.floats(0, 9999), st.binary())))
def test_what_the_watcher_writes_is_read_back(pieces: list[tuple[float, bytes]]) -> None:
    """If this fails, lines of a serial log are missing in the page."""
    log = io.BytesIO()
    watcher = SerialWatcher(log)
    clock = 0.0
    for seconds, data in pieces:
        clock = max(clock, seconds)
        watcher.feed(data, clock)
    watcher.finish(clock)
    read = [line.text for line in read_log(log.getvalue().decode())]
    assert read[-200:] == [line.text for line in watcher.tail]
