"""The package on a whole host: sound, and with faults that only such a host shows."""

from __future__ import annotations

import dataclasses
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import files
from pipeline.errors import UsageError
from pipeline.fetch import fetch
from pipeline.image import assembly
from pipeline.image.definition import read_definition
from pipeline.mirrors import Mirrors
from pipeline.smoke.cases.install import CASES as INSTALL
from pipeline.smoke.cases.installed import FIRST
from pipeline.smoke.full import tier
from pipeline.smoke.full.tier import LIMITS, STAGES, assumed, chosen, smoke_host
from pipeline.smoke.results import SmokeResult, Verdict
from tests.conftest import store

Smoke = Callable[..., SmokeResult]


@pytest.fixture(scope="session")
def host(image: assembly.Image) -> assembly.Image:
    """The image of the host that goes with the release's."""
    name = read_definition(image.name).dom0
    assert name is not None
    return assembly.prepare(name, store(), Mirrors())


@pytest.fixture
def smoke(host: assembly.Image, tmp_path: Path) -> Smoke:
    assert host.kernel is not None
    source = host.kernel.source
    kernel = fetch([source], host.store, Mirrors())[source.sha256]

    def run(packages: list[Path], *only: str) -> SmokeResult:
        return smoke_host(
            packages,
            image_root=host.root,
            kernel=kernel,
            xen_version="4.17.5",
            output=tmp_path / "out",
            scratch=host.store.root / "smoke",
            only=only,
            # The machine is the tests' own, and may be slow.
            limits=dataclasses.replace(LIMITS, boot=1200, xl=600, power_off=600),
        )

    return run


@pytest.fixture
def planted(xen_packages: list[Path], tmp_path: Path) -> Callable[[str, bytes], list[Path]]:
    """Make the packages, with other content of one file."""

    def make(path: str, data: bytes) -> list[Path]:
        made = []
        for package in xen_packages:
            target = tmp_path / package.name.partition(".pkg.")[0]
            target = target.with_name(f"{target.name}.pkg.tar")
            with tarfile.open(package) as old, tarfile.open(target, "w") as new:
                for member in old:
                    file = old.extractfile(member) if member.isreg() else None
                    content = file.read() if file else b""
                    if member.name == path:
                        content = data
                        member.size = len(data)
                    new.addfile(member, io.BytesIO(content) if file else None)
            made.append(target)
        return made

    return make


@pytest.mark.integration
def test_a_sound_package(xen_packages: list[Path], smoke: Smoke, tmp_path: Path) -> None:
    """If this fails, what the wiki page tells users to do does not lead to a host that works.

    Two starts of the four; `./inv smoke --suite full` makes all.
    """
    started = [case.name for case in FIRST if case.name not in ("grub-prompt", "grub-restart")]
    result = smoke(xen_packages, "pacman-check", "without-xen", *started)
    assert result.verdict is Verdict.PASS, result.failures
    assert {case.verdict for case in result.cases} == {Verdict.PASS}
    assert [case.name for case in result.cases] == [*(case.name for case in INSTALL), *started]
    for log in ("serial.log", "serial.install.log"):
        assert (tmp_path / "out" / log).stat().st_size > 0


@pytest.mark.integration
def test_a_09_xen_that_yields_nothing(planted: Callable[[str, bytes], list[Path]], smoke: Smoke) -> None:
    """If this fails, users find out after the restart that their menu has no Xen."""
    result = smoke(planted("etc/grub.d/09_xen", b"#!/bin/sh\nexit 0\n"), "grub-menu")
    (failure,) = result.failures
    assert (failure.name, failure.failure, failure.file) == (
        "grub-menu",
        "NoMenuEntryError",
        "etc/grub.d/09_xen",
    )


@pytest.mark.integration
def test_a_unit_that_fails(planted: Callable[[str, bytes], list[Path]], smoke: Smoke) -> None:
    """If this fails, a service that does not start is found by users, and not by us."""
    unit = "usr/lib/systemd/system/xenconsoled.service"
    text = (
        "[Unit]\nRequires=xenstored.service\nAfter=xenstored.service\n"
        "[Service]\nExecStart=/usr/bin/false\nType=oneshot\n[Install]\nWantedBy=multi-user.target\n"
    )
    result = smoke(planted(unit, text.encode()), "grub-up")
    (failure,) = result.failures
    assert (failure.name, failure.failure, failure.file) == ("grub-up", "UnitFailedError", unit)
    assert "xenconsoled.service" in failure.evidence


def test_a_case_alone() -> None:
    """Or a failed case costs the whole tier each time that somebody looks into it."""
    stages = chosen(["grub-up"])
    assert [stage.name for stage in stages] == ["install", "grub"]
    assert [case.name for case in stages[1].cases] == ["grub-xen", "grub-up"]
    assert stages[0].cases[-1].name == "restart"
    assert chosen([]) == STAGES
    with pytest.raises(UsageError, match="no case 'nothing'"):
        chosen(["nothing"])


def test_no_two_cases_have_one_name() -> None:
    """Their logs would overwrite each other."""
    names = [case.name for stage in STAGES for case in stage.cases]
    assert len(names) == len(set(names))


def test_dependencies_are_taken_as_installed() -> None:
    """pacman would refuse a package that asks for a version, where it is told a name only."""
    asked = ["bash", "python>=3.12", "libx.so=1-64", "python>=3.12"]
    assert assumed(asked) == ["bash", "python=3.12", "libx.so=1-64"]


def test_a_damaged_disk_is_not_used(tmp_path: Path) -> None:
    """A bit that has flipped on this host's disk must not become a package's fault."""
    kept = tmp_path / ("0" * 32)
    assert not tier._sound(kept)
    kept.mkdir()
    (kept / "host.img").write_bytes(b"disk")
    (kept / "SHA256SUMS").write_text(f"{files.sha256(kept / 'host.img')}  host.img\n")
    assert tier._sound(kept)
    (kept / "host.img").write_bytes(b"disc")
    assert not tier._sound(kept)


def test_few_disks_are_kept(tmp_path: Path) -> None:
    """Each is 400 MB, and every change of this project's code makes a new one."""
    for number in range(5):
        (tmp_path / f"{number:032}").mkdir()
    newest = tmp_path / f"{9:032}"
    newest.mkdir()
    tier._prune(tmp_path, newest)
    assert newest in list(tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == tier.KEPT_DISKS
