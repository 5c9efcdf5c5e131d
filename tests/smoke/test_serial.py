"""The watcher of the serial line: every death is seen at once and called by its name."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.smoke.errors import Dom0PanicError, XenPanicError
from pipeline.smoke.serial import MAX_LINE, MAX_LOG, SerialWatcher, classify

XEN = [
    "(XEN) Panic on CPU 0:",
    "(XEN) [2026-01-01 10:00:00] Panic on CPU 12:",
    "(XEN) [    3.141592] Xen BUG at mm.c:42",
    "(XEN) FATAL TRAP: vec 6, #UD[0000] [in irq context]",
    "(XEN) Assertion 'page->count' failed at mm.c:7",
    "smoke: half a line (XEN) Panic on CPU 0:",
]
DOM0 = [
    "[    4.397486] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000200",
    "Kernel panic - not syncing: VFS: Unable to mount root fs",
    "[   12.000001] BUG: unable to handle page fault for address: ffff888000000000",
    "[   12.000001] Oops: 0002 [#1] PREEMPT SMP NOPTI",
    "[    1.5] kernel BUG at drivers/xen/events.c:1!",
    "[    1.5] general protection fault, probably for non-canonical address 0x1: 0000 [#1] SMP",
    "(XEN) Domain 0 (vcpu#0) crashed on cpu#0:",
    "(XEN) Hardware Dom0 crashed: rebooting machine in 5 seconds.",
]
HARMLESS = [
    "",
    "(XEN) Xen version 4.17.5 (root@host) (gcc) debug=n",
    "(XEN) Hardware Dom0 halted: halting machine",
    "[    0.1] Command line: console=hvc0 panic=5 oops=panic",
    "(d1) Kernel panic - not syncing: a guest's own business",
    "(d1) (XEN) Panic on CPU 0:",
    "(d12v0) Kernel panic - not syncing: no",
    "(XEN) Bringing up CPU 1",
    "[    2.0] x86/mm: Checked W+X mappings: passed, no BUG found",
]


@pytest.mark.parametrize("line", XEN)
def test_a_dead_xen_is_seen(line: str) -> None:
    """If this fails, a panic of Xen shows as a hang minutes later."""
    assert isinstance(classify(line), XenPanicError)


@pytest.mark.parametrize("line", DOM0)
def test_a_dead_dom0_is_seen(line: str) -> None:
    """If this fails, a panic of dom0 is taken for a hang, or for a fault of Xen."""
    assert isinstance(classify(line), Dom0PanicError)


@pytest.mark.parametrize("line", HARMLESS)
def test_an_ordinary_line_is_none(line: str) -> None:
    """If this fails, good packages are called broken; or a guest decides over the verdict."""
    assert classify(line) is None


@given(st.lists(st.sampled_from(XEN[:2] + DOM0 + HARMLESS), max_size=12), st.data())
def test_how_bytes_are_cut_does_not_matter(lines: list[str], data: st.DataObject) -> None:
    """If this fails, a panic that comes in two pieces is missed."""
    stream = "".join(line + "\r\n" for line in lines).encode()
    cut, whole = SerialWatcher(), SerialWatcher()
    whole.feed(stream, 1.0)
    rest = stream
    while rest:
        count = data.draw(st.integers(1, len(rest)))
        cut.feed(rest[:count], 1.0)
        rest = rest[count:]
    expected: PipelineError | None = next((f for line in lines if (f := classify(line)) is not None), None)
    assert str(cut.fault) == str(whole.fault)
    assert str(whole.fault).startswith(str(expected))
    assert type(cut.fault) is type(whole.fault) is type(expected)


def test_only_the_first_banner_counts() -> None:
    """If this fails, a later line could claim another version than the one that booted."""
    watcher = SerialWatcher()
    watcher.feed(b"(d1) (XEN) Xen version 9.9 (x)\n(XEN) Xen version 4.17.5 (a@b) (gcc)\n", 2.5)
    watcher.feed(b"(XEN) Xen version 4.20.0 (a@b) (gcc)\n", 3)
    assert watcher.banner == "4.17.5"
    assert watcher.heard_xen == 2.5


def test_a_last_line_without_end_counts() -> None:
    """If this fails, the panic of a machine that died while printing it is missed."""
    watcher = SerialWatcher()
    watcher.feed(b"(XEN) Panic on CPU 0:", 1)
    assert watcher.fault is None
    watcher.finish(2)
    assert isinstance(watcher.fault, XenPanicError)


def test_a_panic_says_why() -> None:
    """If this fails, the one sentence of a red night says that Xen panicked, and nothing else."""
    watcher = SerialWatcher()
    watcher.feed(b"(XEN) Panic on CPU 0:\n(d1) a guest's\n(XEN) Could not allocate\n(XEN) *******\n", 1)
    assert watcher.fault is not None
    assert watcher.fault.message == "Xen panicked: Panic on CPU 0: Could not allocate"


def test_a_flood_does_not_fill_the_host_and_hides_nothing() -> None:
    """If this fails, a machine that prints without end fills the disk, or hides its panic."""
    log = io.BytesIO()
    watcher = SerialWatcher(log)
    for _ in range(MAX_LOG // (1 << 20) + 2):
        watcher.feed(b"x" * (1 << 20), 1)
    watcher.feed(b"\n(XEN) Panic on CPU 0:\n", 2)
    assert len(log.getvalue()) < MAX_LOG + 2 * MAX_LINE
    assert isinstance(watcher.fault, XenPanicError)


def test_the_log_has_times_and_no_control_characters() -> None:
    """If this fails, reading a log in a terminal lets the machine under test write to it."""
    log = io.BytesIO()
    SerialWatcher(log).feed(b"a\x1b[2Jb\xff\x00\n", 12.3456)
    assert log.getvalue().decode().startswith("[    12.346] a")
    assert "\x1b" not in log.getvalue().decode()
