"""Real machines, sound and with faults planted; each fault has its own class and comes in time."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.smoke.accelerator import Accelerator
from pipeline.smoke.agent import MAX_OUTPUT
from pipeline.smoke.case import Case, Host
from pipeline.smoke.cpio import File, Tree
from pipeline.smoke.dom0 import HostFiles, assemble
from pipeline.smoke.hardware import Direct
from pipeline.smoke.kernel import Kernel
from pipeline.smoke.layers import PackageLayer
from pipeline.smoke.results import Verdict
from pipeline.smoke.suite import smoke
from tests.smoke.red import FAST, FROM_DOM0, LIMITS, Maker, run, verdicts
from tests.smoke.silent_xen import silent_xen

pytestmark = pytest.mark.integration


def test_a_panic_of_dom0_is_red_within_seconds(
    host_with: Maker, accelerator: Accelerator, tmp_path: Path
) -> None:
    """If this fails, a dom0 that dies costs minutes, or looks like a fault of Xen."""
    red = run(host_with("exit 3"), accelerator, tmp_path, cases=FROM_DOM0, fault="Kernel panic - not")
    assert red.case.failure == "Dom0PanicError"
    assert red.case.verdict is Verdict.FAIL
    assert "Attempted to kill init" in red.case.evidence
    assert red.delay < 5


def test_an_oops_of_dom0_is_red_though_the_machine_goes_on(
    host_with: Maker, accelerator: Accelerator, tmp_path: Path
) -> None:
    """If this fails, a broken kernel interface is overlooked as long as dom0 limps on."""
    script = (
        "/bin/busybox mount -t devtmpfs devtmpfs /dev\n"
        "echo '<0>BUG: unable to handle page fault for address: 0' >/dev/kmsg\n"
        "while :; do /bin/busybox sleep 9; done"
    )
    red = run(host_with(script), accelerator, tmp_path, cases=FROM_DOM0, fault="BUG: unable to handle")
    assert red.case.failure == "Dom0PanicError"
    assert red.delay < 5


def test_a_panic_of_xen_is_red_within_seconds(
    host_with: Maker, accelerator: Accelerator, tmp_path: Path
) -> None:
    """If this fails, a Xen that dies costs minutes, or looks like a fault of dom0."""
    files = dataclasses.replace(host_with(""), kernel=b"this is no kernel" * 100)
    red = run(files, accelerator, tmp_path, cases=FROM_DOM0, fault="Panic on CPU")
    assert red.case.failure == "XenPanicError"
    assert red.case.verdict is Verdict.FAIL
    assert red.delay < 5
    assert [case.verdict for case in red.attempt.cases[2:]] == [Verdict.SKIPPED] * 7


def test_a_reset_without_a_panic_has_its_own_class(
    host_with: Maker, accelerator: Accelerator, tmp_path: Path
) -> None:
    """If this fails, a machine that resets silently is blamed on the test bed."""
    red = run(host_with("/bin/busybox reboot -f"), accelerator, tmp_path, cases=FROM_DOM0)
    assert red.case.failure == "MachineResetError"
    assert red.case.verdict is Verdict.FAIL


def test_a_hang_ends_at_its_limit(host_with: Maker, accelerator: Accelerator, tmp_path: Path) -> None:
    """If this fails, a dom0 that hangs blocks the pipeline for ever."""
    limits = dataclasses.replace(LIMITS, boot=12)
    red = run(
        host_with("while :; do /bin/busybox sleep 9; done"),
        accelerator,
        tmp_path,
        cases=FROM_DOM0,
        limits=limits,
    )
    assert red.case.failure == "HangError"
    assert 12 <= red.case.seconds < 25


def test_the_run_as_a_whole_has_a_limit(host_with: Maker, accelerator: Accelerator, tmp_path: Path) -> None:
    """If this fails, many waits that each stay within their limit block the pipeline for an hour."""
    limits = dataclasses.replace(LIMITS, total=8)
    red = run(
        host_with("while :; do /bin/busybox sleep 9; done"),
        accelerator,
        tmp_path,
        cases=FROM_DOM0,
        limits=limits,
    )
    assert (red.case.name, red.case.failure) == ("dom0-up", "HangError")
    assert red.seconds < 12


def test_the_wrong_version_ends_the_run_at_once(
    host_with: Maker, accelerator: Accelerator, tmp_path: Path
) -> None:
    """If this fails, a stale hypervisor passes for the one that was built."""
    red = run(host_with(""), accelerator, tmp_path, version="4.17.55")
    assert red.case.failure == "WrongBannerError"
    assert red.case.verdict is Verdict.FAIL
    assert red.seconds < red.case.begin + red.case.seconds + 5


def test_a_silent_machine_is_infrastructure(
    host_with: Maker, accelerator: Accelerator, tmp_path: Path
) -> None:
    """If this fails, a boot that never reached Xen is blamed on the package."""
    files = dataclasses.replace(host_with(""), xen=silent_xen())
    red = run(files, accelerator, tmp_path, limits=dataclasses.replace(LIMITS, banner=4))
    assert red.case.failure == "NoBannerError"
    assert red.case.verdict is Verdict.INFRASTRUCTURE


def test_a_qemu_that_does_not_start_is_infrastructure(
    host_with: Maker, accelerator: Accelerator, tmp_path: Path
) -> None:
    """If this fails, a broken QEMU is blamed on the package, or ends in a traceback."""
    files = dataclasses.replace(host_with(""), xen=b"no multiboot image at all")
    red = run(files, accelerator, tmp_path)
    assert red.case.failure == "QemuDiedError"
    assert red.case.verdict is Verdict.INFRASTRUCTURE


def test_a_killed_qemu_is_infrastructure(host_with: Maker, accelerator: Accelerator, tmp_path: Path) -> None:
    """If this fails, a QEMU that the host killed (memory) is blamed on the package."""

    async def kill(host: Host) -> str:
        os.kill(host.machine.pid, signal.SIGKILL)
        await host.machine.wait_line("never", 20)
        return ""

    red = run(host_with(""), accelerator, tmp_path, cases=(Case("kill", "", kill), *FAST))
    assert red.case.failure == "QemuDiedError"
    assert red.seconds < 10


def alive(pid: int) -> bool:
    try:
        # A zombie that waits for its parent is dead for our purposes.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGINT])
def test_qemu_does_not_outlive_us(
    death: signal.Signals, host_with: Maker, accelerator: Accelerator, tmp_path: Path
) -> None:
    """If this fails, every interrupted run leaves a machine behind that eats a core."""
    files = host_with("while :; do /bin/busybox sleep 9; done")
    Direct.write(files, tmp_path)
    (tmp_path / "run").mkdir()
    program = (
        "import asyncio, io\n"
        "from pathlib import Path\n"
        "from pipeline.smoke.accelerator import Accelerator, Kind\n"
        "from pipeline.smoke.hardware import Direct, Hardware\n"
        "from pipeline.smoke.machine import Machine\n"
        "async def main():\n"
        "    here = Path('.')\n"
        "    files = (here / 'xen', here / 'kernel', here / 'initramfs')\n"
        "    hardware = Hardware(Direct(*files))\n"
        "    accelerator = Accelerator(Kind.TCG, '')\n"
        "    async with Machine(hardware, accelerator, here / 'run', io.BytesIO()) as machine:\n"
        "        print(machine.pid, flush=True)\n"
        "        await machine.wait_line('never', 60)\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert alive(pid)
    process.send_signal(death)
    process.wait(10)
    process.stdout.close()
    deadline = time.monotonic() + 3
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)


def test_the_c_daemon_does_not_pass_for_oxenstored(
    planted: Callable[..., HostFiles], layer: PackageLayer, accelerator: Accelerator, tmp_path: Path
) -> None:
    """If this fails, a package whose OCaml daemon is missing or broken goes out."""
    (other,) = [layer.tree[path] for path in layer.programs("xenstored")][-1:]
    assert isinstance(other, File)
    red = run(planted(oxenstored=other), accelerator, tmp_path, cases=(*FROM_DOM0[:4], FAST[-1]))
    assert red.case.name == "oxenstored"
    assert "written in C" in red.case.evidence
    assert verdicts(red.attempt)["power-off"] == "pass"


def test_broken_tools_are_red_one_by_one(
    planted: Callable[..., HostFiles], accelerator: Accelerator, tmp_path: Path
) -> None:
    """If this fails, a package whose xl does not start passes; or one fault hides the others."""
    broken = File(b"#!/bin/sh\necho 'xl: error while loading shared libraries'\nexit 127\n", 0o755)
    red = run(planted(xl=broken), accelerator, tmp_path, cases=FROM_DOM0)
    assert verdicts(red.attempt) == {
        **dict.fromkeys(("xen-banner", "dom0-up", "xenfs", "oxenstored", "xenbr0", "power-off"), "pass"),
        **dict.fromkeys(("xl-info", "xl-list", "pv-guest"), "CheckFailedError"),
    }
    assert "error while loading" in red.case.detail
    assert red.attempt.dom0_log


def test_the_agent_bears_hangs_floods_and_daemons(
    planted: Callable[..., HostFiles], accelerator: Accelerator, tmp_path: Path
) -> None:
    """If this fails, one command in dom0 that misbehaves takes all later checks with it."""

    async def hang(host: Host) -> str:
        await host.succeed("sleep 60", 2)
        return ""

    async def flood(host: Host) -> str:
        reply = await host.run("head -c 3000000 /dev/urandom")
        assert reply.truncated
        assert 0 < len(reply.output) <= MAX_OUTPUT
        return ""

    async def daemon(host: Host) -> str:
        await host.succeed("setsid sleep 300 & echo started")
        return await host.succeed("echo still here")

    probes = [Case(work.__name__, "", work) for work in (hang, flood, daemon)]
    red = run(planted(), accelerator, tmp_path, cases=(*FROM_DOM0[:2], *probes, FAST[-1]))
    assert verdicts(red.attempt) == {
        **dict.fromkeys(("xen-banner", "dom0-up", "flood", "daemon", "power-off"), "pass"),
        "hang": "HangError",
    }


def test_each_check_sees_its_own_fault(
    planted: Callable[..., HostFiles], accelerator: Accelerator, tmp_path: Path
) -> None:
    """If this fails, a check is blind: it passes on a host where what it looks at is broken."""
    ramdisk = "/drive/guest/initramfs"
    faults = {
        "xenfs": "umount -l /proc/xen",
        "xenbr0": "ip link del xenbr0",
        # The guest's kernel panics; that is the guest's business, and no panic of dom0.
        "pv-guest": "head -c 99999 $GUEST >/tmp/a && mount -o bind /tmp/a $GUEST".replace("$GUEST", ramdisk),
        "oxenstored": "kill $(cat /run/xen/xenstored.pid); sleep 1",
    }
    made = {case.name: case for case in FAST}

    def spoiled(case: Case, command: str) -> Case:
        async def work(host: Host) -> str:
            assert (await host.run(command)).status == 0, command
            return await case.run(host)

        return dataclasses.replace(case, run=work)

    cases = [spoiled(made[name], command) for name, command in faults.items()]
    red = run(planted(), accelerator, tmp_path, cases=(*FROM_DOM0[:2], *cases, FAST[-1]))
    assert verdicts(red.attempt) == {
        "xen-banner": "pass",
        "dom0-up": "pass",
        **dict.fromkeys(faults, "CheckFailedError"),
        # The client of a store that was told to end gets no answer, and no error either.
        "oxenstored": "HangError",
        "power-off": "pass",
    }
    evidence = {case.name: case for case in red.attempt.cases}
    assert evidence["pv-guest"].evidence == "The guest did not come to its init."
    assert "Kernel panic" in evidence["pv-guest"].detail


def test_an_agent_that_dies_is_infrastructure(
    planted: Callable[..., HostFiles],
    accelerator: Accelerator,
    tmp_path: Path,
) -> None:
    """If this fails, a fault of our own agent is blamed on the package."""

    async def kill(host: Host) -> str:
        await host.run("kill -9 $(cat /run/smoke/agent0/pid)", 2)
        return ""

    red = run(planted(), accelerator, tmp_path, cases=(*FROM_DOM0[:2], Case("kill", "", kill)))
    assert red.case.failure == "AgentLostError"
    assert red.case.verdict is Verdict.INFRASTRUCTURE


def test_the_same_inputs_make_the_same_machine(
    layer: PackageLayer, kernel: Kernel, image_root: Path, supplied: Tree
) -> None:
    """If this fails, snapshots cannot be found again, and evidence names hashes that mean nothing."""
    first, second = (assemble(layer, image_root, kernel, supplied) for _ in range(2))
    assert first.boot.hashes() == second.boot.hashes()
    assert (first.goods, first.disk) == (second.goods, second.disk)


def test_infrastructure_is_tried_once_more(
    xen_packages: list[Path],
    layer: PackageLayer,
    image_root: Path,
    kernel_deb: Path,
    supply_debs: dict[str, Path],
    accelerator: Accelerator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If this fails, one hiccup of the host fails a release; or a dead host is tried for ever."""
    monkeypatch.setattr("pipeline.smoke.dom0.find_xen", lambda layer: silent_xen())
    result = smoke(
        xen_packages,
        image_root=image_root,
        kernel=kernel_deb,
        supplies=supply_debs,
        xen_version="4.17.5",
        output=tmp_path / "out",
        scratch=tmp_path / "scratch",
        limits=dataclasses.replace(LIMITS, banner=2),
        accelerator=accelerator,
    )
    assert (result.verdict, result.attempts) == (Verdict.INFRASTRUCTURE, 2)
    assert result.cases[0].failure == "NoBannerError"
    assert (tmp_path / "out/serial.1.log").exists()
