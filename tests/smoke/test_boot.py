"""Real machines, sound and with faults planted; each fault has its own class and comes in time."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import junitparser
import pytest

from pipeline.smoke import results
from pipeline.smoke.accelerator import Accelerator, choose
from pipeline.smoke.agent import MAX_OUTPUT
from pipeline.smoke.case import Case, Facts, Host, Limits
from pipeline.smoke.cases import BOOT, pv
from pipeline.smoke.cpio import File, Symlink
from pipeline.smoke.dom0 import BootFiles, assemble, find_xen
from pipeline.smoke.hardware import Direct, Hardware
from pipeline.smoke.kernel import Kernel
from pipeline.smoke.layers import PackageLayer
from pipeline.smoke.results import CaseResult, Verdict
from pipeline.smoke.runner import Run, Runner
from pipeline.smoke.suite import smoke
from tests.smoke.silent_xen import silent_xen

pytestmark = pytest.mark.integration

Maker = Callable[[str], BootFiles]
FAST = (*BOOT[:-1], *pv.CASES, BOOT[-1])
SMALL, USUAL = (384, 192), (768, 384)
"""Memory of the machine and of dom0, in MiB."""
LIMITS = Limits(banner=60, boot=60, command=20, xl=60, power_off=30, total=300)


@pytest.fixture(scope="session")
def accelerator(layer: PackageLayer) -> Accelerator:
    return choose(find_xen(layer))


@pytest.fixture(scope="session")
def version(layer: PackageLayer) -> str:
    """The version that the package says it has, less what makepkg appends to it."""
    info = layer.tree[".PKGINFO"]
    assert isinstance(info, File)
    match = re.search(rb"^pkgver = ([0-9]+\.[0-9]+\.[0-9]+)", info.data, re.MULTILINE)
    assert match is not None
    return match[1].decode()


@dataclasses.dataclass(frozen=True)
class Red:
    """How a run went red: the check, and the seconds from the fault's line on serial to QEMU's end."""

    case: CaseResult
    delay: float
    seconds: float
    attempt: Run


def run(
    files: BootFiles,
    accelerator: Accelerator,
    folder: Path,
    *,
    version: str = "any",
    limits: Limits = LIMITS,
    memory: tuple[int, int] = SMALL,
    cases: Sequence[Case] = FAST,
    fault: str = "",
) -> Red:
    hardware = Hardware(Direct.write(files, folder / "boot", memory[1]), memory[0])
    runner = Runner(Facts(version, accelerator), limits, folder / "machines")
    attempt = asyncio.run(runner.in_order(hardware, cases))
    red = [case for case in attempt.cases if case.verdict not in (Verdict.PASS, Verdict.SKIPPED)]
    assert red, attempt.cases
    stamps = [
        float(match[1])
        for line in attempt.serial.getvalue().decode().splitlines()
        if fault and fault in line and (match := re.match(r"\[ *([\d.]+)\]", line))
    ]
    assert not fault or stamps, attempt.serial.getvalue().decode()[-3000:]
    return Red(red[0], attempt.seconds - stamps[0] if stamps else 0.0, attempt.seconds, attempt)


async def any_banner(host: Host) -> str:
    return await host.machine.wait_banner(host.limits.banner)


# A hypervisor of any version will do where the fault comes later.
FROM_DOM0 = (Case("xen-banner", "any Xen", any_banner, vital=True), *FAST[1:])


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


@pytest.fixture
def planted(layer: PackageLayer, kernel: Kernel, image_root: Path) -> Callable[..., BootFiles]:
    """The whole test host, with files of the package replaced."""

    def make(**files: File | Symlink) -> BootFiles:
        tree = dict(layer.tree)
        for name, entry in files.items():
            for path in PackageLayer(tree).programs(name):
                if not isinstance(tree[path], Symlink):
                    tree[path] = entry
        return assemble(PackageLayer(tree), image_root, kernel)

    return make


def verdicts(attempt: Run) -> dict[str, str]:
    return {case.name: case.failure or case.verdict for case in attempt.cases}


def test_the_c_daemon_does_not_pass_for_oxenstored(
    planted: Callable[..., BootFiles], layer: PackageLayer, accelerator: Accelerator, tmp_path: Path
) -> None:
    """If this fails, a package whose OCaml daemon is missing or broken goes out."""
    (other,) = [layer.tree[path] for path in layer.programs("xenstored")][-1:]
    assert isinstance(other, File)
    red = run(
        planted(oxenstored=other), accelerator, tmp_path, cases=(*FROM_DOM0[:4], FAST[-1]), memory=USUAL
    )
    assert red.case.name == "oxenstored"
    assert "written in C" in red.case.evidence
    assert verdicts(red.attempt)["power-off"] == "pass"


def test_broken_tools_are_red_one_by_one(
    planted: Callable[..., BootFiles], accelerator: Accelerator, tmp_path: Path
) -> None:
    """If this fails, a package whose xl does not start passes; or one fault hides the others."""
    broken = File(b"#!/bin/sh\necho 'xl: error while loading shared libraries'\nexit 127\n", 0o755)
    red = run(planted(xl=broken), accelerator, tmp_path, cases=FROM_DOM0, memory=USUAL)
    assert verdicts(red.attempt) == {
        **dict.fromkeys(("xen-banner", "dom0-up", "xenfs", "oxenstored", "xenbr0", "power-off"), "pass"),
        **dict.fromkeys(("xl-info", "xl-list", "pv-guest"), "CheckFailedError"),
    }
    assert "error while loading" in red.case.detail
    assert red.attempt.dom0_log


def test_the_agent_bears_hangs_floods_and_daemons(
    planted: Callable[..., BootFiles], accelerator: Accelerator, tmp_path: Path
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
    red = run(planted(), accelerator, tmp_path, cases=(*FROM_DOM0[:2], *probes, FAST[-1]), memory=USUAL)
    assert verdicts(red.attempt) == {
        **dict.fromkeys(("xen-banner", "dom0-up", "flood", "daemon", "power-off"), "pass"),
        "hang": "HangError",
    }


def test_each_check_sees_its_own_fault(
    planted: Callable[..., BootFiles], accelerator: Accelerator, tmp_path: Path
) -> None:
    """If this fails, a check is blind: it passes on a host where what it looks at is broken."""
    guest = "/usr/lib/smoke/guest/pv.cfg"
    faults = {
        "xenfs": "umount -l /proc/xen",
        "xenbr0": "ip link del xenbr0",
        # The guest's kernel panics; that is the guest's business, and no panic of dom0.
        "pv-guest": f"sed -i s,panic=1,rdinit=/none, {guest} && grep rdinit {guest}",
        "oxenstored": "kill $(cat /run/xen/xenstored.pid); sleep 1",
    }
    made = {case.name: case for case in FAST}

    def spoiled(case: Case, command: str) -> Case:
        async def work(host: Host) -> str:
            assert (await host.run(command)).status == 0, command
            return await case.run(host)

        return dataclasses.replace(case, run=work)

    cases = [spoiled(made[name], command) for name, command in faults.items()]
    red = run(planted(), accelerator, tmp_path, cases=(*FROM_DOM0[:2], *cases, FAST[-1]), memory=USUAL)
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
    planted: Callable[..., BootFiles],
    accelerator: Accelerator,
    tmp_path: Path,
) -> None:
    """If this fails, a fault of our own agent is blamed on the package."""

    async def kill(host: Host) -> str:
        await host.run("kill -9 $(cat /run/smoke/agent0/pid)", 2)
        return ""

    red = run(planted(), accelerator, tmp_path, cases=(*FROM_DOM0[:2], Case("kill", "", kill)), memory=USUAL)
    assert red.case.failure == "AgentLostError"
    assert red.case.verdict is Verdict.INFRASTRUCTURE


def test_a_sound_package_passes_in_time(
    layer: PackageLayer,
    xen_packages: list[Path],
    image_root: Path,
    kernel_deb: Path,
    version: str,
    tmp_path: Path,
) -> None:
    """If this fails, no package can be published, or the smoke test is too slow to be run often."""
    output = tmp_path / "out, with a comma"
    result = smoke(
        xen_packages,
        image_root=image_root,
        kernel=kernel_deb,
        xen_version=version,
        output=output,
        scratch=tmp_path / "scratch, too",
    )
    assert result.verdict is Verdict.PASS, result.failures
    assert result.timings["total"] < 90
    assert results.read(output / "results.json") == result
    suite = next(iter(junitparser.JUnitXml.fromfile(str(output / "results.xml"))))
    assert (suite.tests, suite.failures, suite.errors) == (len(FAST), 0, 0)
    assert "Xen version" in (output / "serial.log").read_text()
    assert {"xen", "kernel", "initramfs", *(p.name for p in xen_packages)} <= {i.name for i in result.inputs}
    assert any("guest-shutdown" in event for event in result.events)


def test_the_same_inputs_make_the_same_machine(layer: PackageLayer, kernel: Kernel, image_root: Path) -> None:
    """If this fails, snapshots cannot be found again, and evidence names hashes that mean nothing."""
    first, second = (assemble(layer, image_root, kernel) for _ in range(2))
    assert first.hashes() == second.hashes()


def test_infrastructure_is_tried_once_more(
    xen_packages: list[Path],
    layer: PackageLayer,
    image_root: Path,
    kernel_deb: Path,
    accelerator: Accelerator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If this fails, one hiccup of the host fails a release; or a dead host is tried for ever."""
    monkeypatch.setattr("pipeline.smoke.suite.find_xen", lambda layer: silent_xen())
    monkeypatch.setattr("pipeline.smoke.dom0.find_xen", lambda layer: silent_xen())
    result = smoke(
        xen_packages,
        image_root=image_root,
        kernel=kernel_deb,
        xen_version="4.17.5",
        output=tmp_path / "out",
        scratch=tmp_path / "scratch",
        limits=dataclasses.replace(LIMITS, banner=2),
        accelerator=accelerator,
    )
    assert (result.verdict, result.attempts) == (Verdict.INFRASTRUCTURE, 2)
    assert result.cases[0].failure == "NoBannerError"
    assert (tmp_path / "out/serial.1.log").exists()
