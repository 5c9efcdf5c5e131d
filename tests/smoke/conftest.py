"""What the integration tests boot: the packages of the release that this test run has built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.smoke.cpio import CharDevice, File, Tree, write_newc
from pipeline.smoke.dom0 import BootFiles, find_xen
from pipeline.smoke.kernel import Kernel
from pipeline.smoke.layers import PackageLayer, read_packages
from pipeline.smoke.suite import cached_kernel


@pytest.fixture(scope="session")
def layer(xen_packages: list[Path]) -> PackageLayer:
    return read_packages(xen_packages)


@pytest.fixture(scope="session")
def kernel(kernel_deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    return cached_kernel(kernel_deb, tmp_path_factory.mktemp("kernel"))


@pytest.fixture(scope="session")
def host_with(layer: PackageLayer, kernel: Kernel, image_root: Path) -> Callable[[str], BootFiles]:
    """Boot files whose dom0 runs one shell script and has nothing else."""

    def make(script: str) -> BootFiles:
        tree: Tree = {
            "init": File(b"#!/bin/busybox sh\n" + script.encode(), 0o755),
            "bin/busybox": File((image_root / "usr/bin/busybox").resolve().read_bytes(), 0o755),
            "dev/console": CharDevice(5, 1),
        }
        return BootFiles(find_xen(layer), kernel.vmlinux, write_newc(tree))

    return make
