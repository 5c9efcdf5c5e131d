"""Somebody's guests on a real machine: those that come up, and those that do not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipeline.files import sha256
from pipeline.smoke.disk import write_disk
from pipeline.smoke.guest_files import disk, ramdisk
from pipeline.smoke.guests.suite import own
from pipeline.smoke.kernel import Kernel
from pipeline.smoke.prepare import drive
from pipeline.smoke.results import SmokeResult
from pipeline.smoke.sector import boot_disk
from pipeline.smoke.suite import smoke
from tests.smoke.xtf.framework import pv_kernel

pytestmark = pytest.mark.integration

LINUX = 'kernel = "vmlinux"\nextra = "console=hvc0 quiet panic=1 smoke=stay"\nmemory = 128\n'
GUESTS = {
    "kernel": LINUX + 'ramdisk = "initramfs"\nvif = ["bridge=br0"]\n',
    "pygrub": 'memory = 160\nbootloader = "pygrub"\ndisk = ["installed.qcow2,qcow2,xvda,w"]\n',
    "bios": 'builder = "hvm"\nmemory = 32\ndisk = ["file:bios.img,hda,w"]\nvif = ["model=e1000"]\n',
    "panics": LINUX,
    "leaves": 'kernel = "leaves"\nmemory = 16\n',
    "refused": LINUX + 'type = "another"\n',
}
WANTED = {
    "kernel": ("pass", None),
    "pygrub": ("pass", None),
    "bios": ("pass", None),
    "panics": ("fail", "GuestGoneError"),
    "leaves": ("fail", "GuestGoneError"),
    "refused": ("fail", "CheckFailedError"),
}


@pytest.fixture(scope="module")
def folder(kernel: Kernel, image_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of guests as somebody has them: configurations, and what they name."""
    place = tmp_path_factory.mktemp("somebody's guests")
    busybox = (image_root / "usr/bin/busybox").resolve().read_bytes()
    (place / "vmlinux").write_bytes(kernel.vmlinux)
    (place / "initramfs").write_bytes(ramdisk(busybox, kernel))
    (place / "leaves").write_bytes(pv_kernel("I do not stay\n"))
    (place / "bios.img").write_bytes(boot_disk())
    raw = drive(disk(kernel, busybox), place / "made", write_disk)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, place / "installed.qcow2"], check=True)
    (place / "installed.sha256").write_text(sha256(place / "installed.qcow2"))
    for name, text in GUESTS.items():
        (place / f"{name}.cfg").write_text(f'name = "{name}"\n{text}')
    return place


@pytest.fixture(scope="module")
def result(
    xen_packages: list[Path],
    kernel_deb: Path,
    supply_debs: dict[str, Path],
    image_root: Path,
    folder: Path,
) -> SmokeResult:
    return smoke(
        xen_packages,
        image_root=image_root,
        kernel=kernel_deb,
        supplies=supply_debs,
        xen_version="4.17.5",
        output=folder / "out",
        scratch=folder / "scratch",
        suite=own([folder / f"{name}.cfg" for name in GUESTS], "-UP "),
    )


def test_guests_come_up_or_it_is_told_why_not(result: SmokeResult, folder: Path) -> None:
    """If this fails, a guest that works is called broken, or the other way round; or its disk is written to.

    One test, because each worker would make a run of its own.
    """
    found = {case.name: (case.verdict.value, case.failure) for case in result.cases}
    assert found == WANTED, [(case.name, case.evidence, case.detail) for case in result.cases]
    cases = {case.name: case for case in result.cases}
    assert "SMOKE-GUEST-UP" in cases["kernel"].evidence
    assert "root=/dev/xvda1" in cases["pygrub"].evidence
    assert "SMOKE-HVM-UP" in cases["bios"].evidence
    assert "panicked before" in cases["panics"].evidence
    assert "was gone before" in cases["leaves"].evidence
    assert "another" in cases["refused"].detail
    for name, said in (("panics", "Kernel panic"), ("leaves", "I do not stay"), ("bios", "SMOKE-HVM-UP")):
        assert said in (folder / f"out/cases/{name}/console.log").read_text()
    # pygrub's guest mounts its disk to write to it: that is a layer over the image.
    assert sha256(folder / "installed.qcow2") == (folder / "installed.sha256").read_text()
