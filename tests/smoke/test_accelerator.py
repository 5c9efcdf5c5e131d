"""Choosing the accelerator: KVM only where it works, and never without saying why."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline.smoke.accelerator import Accelerator, Kind, choose, kvm_boots
from pipeline.smoke.hypervisor import find_xen
from pipeline.smoke.layers import PackageLayer


def test_each_fact_speaks_for_itself(tmp_path: Path) -> None:
    """If this fails, a host with a useless /dev/kvm hangs, or one with a good one is ten times slower."""
    able, unable, device = tmp_path / "able", tmp_path / "unable", tmp_path / "kvm"
    able.write_text("model name : x\nflags\t\t: fpu svm sse\n")
    unable.write_text("model name : svm look-alike\nflags\t\t: fpu sse vmxnet\n")
    device.write_bytes(b"")
    missing = tmp_path / "missing"
    cases = [
        (unable, device, True, Kind.TCG, "neither vmx nor svm"),
        (able, missing, True, Kind.TCG, "there is no"),
        (able, device, False, Kind.TCG, "printed nothing of Xen"),
        (able, device, True, Kind.KVM, "printed Xen's lines"),
    ]
    for cpuinfo, node, boots, kind, reason in cases:
        chosen = choose(b"", cpuinfo=cpuinfo, device=node, boots=lambda xen, boots=boots: boots)  # type: ignore[misc]
        assert chosen.kind is kind
        assert reason in chosen.reason


def test_qemu_is_never_given_a_list() -> None:
    """If this fails, QEMU falls back by itself and the result names the wrong accelerator."""
    for kind in Kind:
        assert Accelerator(kind, "").qemu_option.split(",")[0] == kind.value


@pytest.mark.integration
def test_the_probe_ends_in_time_whatever_kvm_does(layer: PackageLayer) -> None:
    """If this fails, a software KVM hangs the pipeline before the first test."""
    begin = time.monotonic()
    kvm_boots(find_xen(layer), 4)
    assert time.monotonic() - begin < 6
