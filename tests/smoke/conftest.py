"""What the integration tests boot; named by environment variables until a build provides it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.smoke.cpio import CharDevice, File, Tree, write_newc
from pipeline.smoke.dom0 import BootFiles, find_xen
from pipeline.smoke.kernel import Kernel
from pipeline.smoke.layers import PackageLayer, read_packages
from pipeline.smoke.suite import cached_kernel


def _named(variable: str) -> str:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    return value


@pytest.fixture(scope="session")
def image_root() -> Path:
    return Path(_named("XEN_TEST_ROOT"))


@pytest.fixture(scope="session")
def kernel_deb() -> Path:
    return Path(_named("XEN_TEST_KERNEL"))


@pytest.fixture(scope="session")
def xen_packages() -> list[Path]:
    return [Path(path) for path in _named("XEN_TEST_PACKAGES").split(":")]


@pytest.fixture(scope="session")
def layer(xen_packages: list[Path]) -> PackageLayer:
    return read_packages(xen_packages)


@pytest.fixture(scope="session")
def full_layer(layer: PackageLayer) -> PackageLayer:
    """The package, where it has the tools too and not the hypervisor alone."""
    if not layer.programs("xl"):
        pytest.skip("the package under test holds the hypervisor only")
    return layer


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
