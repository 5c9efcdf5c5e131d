"""Packages with one fault each: red soon after its effect, with its own class and the right file named."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.smoke.accelerator import Accelerator
from pipeline.smoke.cases import BOOT, hvm
from pipeline.smoke.cpio import File
from pipeline.smoke.dom0 import HostFiles
from pipeline.smoke.layers import PackageLayer
from pipeline.smoke.results import Verdict
from tests.smoke.red import FROM_DOM0, LIMITS, run

pytestmark = pytest.mark.integration

Planted = Callable[..., HostFiles]
QUICK = dataclasses.replace(LIMITS, idle=8)


def script(text: str) -> File:
    return File(f"#!/bin/sh\n{text}\n".encode(), 0o755)


@pytest.fixture(scope="session")
def package(layer: PackageLayer) -> frozenset[str]:
    return frozenset(layer.tree)


def test_a_hypervisor_that_panics(
    planted: Planted, accelerator: Accelerator, package: frozenset[str], tmp_path: Path
) -> None:
    """If this fails, a Xen that cannot start dom0 costs minutes, or is blamed on dom0's kernel."""
    host = planted()
    # The version that a kernel's note must have; Xen builds no dom0 of any other, and panics.
    bad = host.boot.xen.replace(b"xen-3.0\0", b"xen-9.9\0")
    assert bad != host.boot.xen
    host = dataclasses.replace(host, boot=dataclasses.replace(host.boot, xen=bad))
    red = run(host, accelerator, tmp_path, cases=FROM_DOM0, fault="Panic on CPU", package=package)
    assert (red.case.failure, red.case.file) == ("XenPanicError", "boot/xen.gz")
    assert red.delay < 5


def test_a_wrong_banner(
    planted: Planted, accelerator: Accelerator, package: frozenset[str], tmp_path: Path
) -> None:
    """If this fails, a stale hypervisor passes for the one that was built."""
    red = run(planted(), accelerator, tmp_path, version="4.17.55", package=package, fault="Xen version")
    assert (red.case.failure, red.case.file) == ("WrongBannerError", "boot/xen.gz")
    assert red.delay < 5


@pytest.mark.parametrize("how", ["exit 1", "(exit 0)"])
def test_an_oxenstored_that_exits(
    how: str, planted: Planted, accelerator: Accelerator, package: frozenset[str], tmp_path: Path
) -> None:
    """If this fails, a store that does not run shows as an xl that hangs, minutes later."""
    dead = script(f"[ '{how}' = 'exit 1' ] || (sleep 0.1 & echo $! >\"$2\"); {how}")
    red = run(
        planted(oxenstored=dead),
        accelerator,
        tmp_path,
        cases=FROM_DOM0,
        limits=QUICK,
        fault="smoke: xenstored:",
        package=package,
    )
    assert (red.case.name, red.case.failure) == ("dom0-up", "CheckFailedError")
    assert red.case.file == "usr/bin/oxenstored"
    assert red.delay < 15


def test_an_xl_that_hangs(
    planted: Planted, accelerator: Accelerator, package: frozenset[str], tmp_path: Path
) -> None:
    """If this fails, an xl that hangs costs minutes a command, and nobody is told which program hung."""
    cases = (*FROM_DOM0[:2], *(case for case in BOOT if case.name in ("xl-list", "power-off")))
    hung = planted(xl=script("while :; do sleep 600; done"))
    red = run(hung, accelerator, tmp_path, cases=cases, limits=QUICK, package=package)
    assert (red.case.name, red.case.failure) == ("xl-list", "HangError")
    assert red.case.file == "usr/bin/xl"
    assert "idle for 8 s" in red.case.evidence
    # What came after it was made all the same.
    assert red.attempt.cases[-1].verdict is Verdict.PASS


def test_a_missing_hvmloader(
    planted: Planted,
    layer: PackageLayer,
    accelerator: Accelerator,
    package: frozenset[str],
    version: str,
    tmp_path: Path,
) -> None:
    """If this fails, a package without hvmloader goes out, and no HVM guest starts on it."""
    (path,) = layer.programs("hvmloader")
    red = run(
        planted(hvmloader=None),
        accelerator,
        tmp_path,
        cases=(*FROM_DOM0[:2], *(case for case in hvm.CASES if case.name == "hvm-guest")),
        package=package - {path},
        version=version,
    )
    assert (red.case.name, red.case.failure) == ("hvm-guest", "CheckFailedError")
    assert red.case.file == path
