"""What the integration tests boot: the packages of the release that this test run has built."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.smoke import prepare
from pipeline.smoke.accelerator import Accelerator, choose
from pipeline.smoke.cpio import CharDevice, File, Symlink, Tree, write_newc
from pipeline.smoke.dom0 import BootFiles, HostFiles, assemble
from pipeline.smoke.hypervisor import find_xen
from pipeline.smoke.kernel import Kernel
from pipeline.smoke.layers import PackageLayer, read_packages


@pytest.fixture(scope="session")
def layer(xen_packages: list[Path]) -> PackageLayer:
    return read_packages(xen_packages)


@pytest.fixture(scope="session")
def kernel(kernel_deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    return prepare.kernel(kernel_deb, tmp_path_factory.mktemp("kernel"))


@pytest.fixture(scope="session")
def supplied(supply_debs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return prepare.supplies(supply_debs, tmp_path_factory.mktemp("supplies"))


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


@pytest.fixture(scope="session")
def planted(
    layer: PackageLayer, kernel: Kernel, image_root: Path, supplied: Tree
) -> Callable[..., HostFiles]:
    """The whole test host, with programs of the package replaced, or (None) removed."""

    def make(**files: File | Symlink | None) -> HostFiles:
        tree = dict(layer.tree)
        for name, entry in files.items():
            for path in PackageLayer(tree).programs(name):
                if entry is None:
                    del tree[path]
                elif not isinstance(tree[path], Symlink):
                    tree[path] = entry
        return assemble(PackageLayer(tree), image_root, kernel, supplied)

    return make
