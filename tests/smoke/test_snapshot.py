"""Saved machines: found by every input, never used when stale or damaged, each start in its own overlay."""

from __future__ import annotations

import asyncio
import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.smoke.accelerator import Accelerator, Kind
from pipeline.smoke.disk import write_ext4
from pipeline.smoke.hardware import Direct, Drive, Hardware
from pipeline.smoke.machine import STATE, Machine
from pipeline.smoke.snapshot import KEPT, Snapshots, snapshot_key
from tests.smoke.silent_xen import silent_xen

TCG = Accelerator(Kind.TCG, "")


@pytest.fixture
def hardware(tmp_path: Path) -> Hardware:
    """A machine that says nothing, with one drive."""
    files = {"xen": silent_xen(), "kernel": b"kernel", "initramfs": b"initramfs"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    write_ext4({}, tmp_path / "disk", spare=1 << 20)
    boot = Direct(tmp_path / "xen", tmp_path / "kernel", tmp_path / "initramfs")
    return Hardware(boot, memory=64, drives=(Drive(tmp_path / "disk"),))


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


CHANGES: dict[str, Callable[[Hardware], Hardware | None]] = {
    "xen": lambda h: append(h.boot.xen),  # type: ignore[union-attr]
    "kernel": lambda h: append(h.boot.kernel),  # type: ignore[union-attr]
    "initramfs": lambda h: append(h.boot.initramfs),  # type: ignore[union-attr,arg-type]
    "disk": lambda h: append(h.drives[0].image),
    "memory": lambda h: dataclasses.replace(h, memory=h.memory + 1),
    "options": lambda h: dataclasses.replace(h, extra=("-rtc", "base=utc")),
    "no disk": lambda h: dataclasses.replace(h, drives=()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_input_is_in_the_key(change: str, hardware: Hardware) -> None:
    """If this fails, cases are made on the machine of another package."""
    before = snapshot_key(hardware, TCG, "QEMU 7.2")
    assert snapshot_key(hardware, TCG, "QEMU 7.2") == before
    assert snapshot_key(CHANGES[change](hardware) or hardware, TCG, "QEMU 7.2") != before


def test_qemu_and_accelerator_are_in_the_key(hardware: Hardware) -> None:
    """If this fails, a machine is restored by a QEMU that cannot read it."""
    keys = [
        snapshot_key(hardware, accelerator, version)
        for accelerator in (TCG, Accelerator(Kind.KVM, ""))
        for version in ("QEMU 7.2", "QEMU 8.0")
    ]
    assert len(set(keys)) == 4


async def saved(snapshots: Snapshots, hardware: Hardware, folder: Path, key: str) -> None:
    folder.mkdir()
    async with Machine(hardware, TCG, folder, io.BytesIO()) as machine:
        await snapshots.save(key, machine)
        await machine.resume()


@pytest.mark.integration
def test_a_damaged_snapshot_is_never_used(
    hardware: Hardware, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If this fails, cases run on a machine that a bad disk has changed."""
    snapshots = Snapshots(tmp_path / "snapshots")
    key = snapshot_key(hardware, TCG, "any")
    with snapshots.use(key) as found:
        assert found is None
    asyncio.run(saved(snapshots, hardware, tmp_path / "machine", key))
    with snapshots.use(key) as found:
        assert found is not None
    inside = tmp_path / "snapshots" / key
    for file in sorted(path.name for path in inside.iterdir()):
        good = (inside / file).read_bytes()
        for bad in (
            good[: len(good) // 2] + bytes([good[len(good) // 2] ^ 1]) + good[len(good) // 2 + 1 :],
            b"",
        ):
            (inside / file).write_bytes(bad)
            with snapshots.use(key) as found:
                assert found is None, file
            assert "is damaged, and not used" in capsys.readouterr().err
        (inside / file).unlink()
        with snapshots.use(key) as found:
            assert found is None, file
        (inside / file).write_bytes(good)
    with snapshots.use(key) as found:
        assert found is not None
    # Under another machine's name, it is not that machine's.
    inside.rename(inside.with_name("0" * 64))
    with snapshots.use("0" * 64) as found:
        assert found is None


@pytest.mark.integration
def test_each_start_has_its_own_overlay(hardware: Hardware, tmp_path: Path) -> None:
    """If this fails, one case sees what another has written, or a saved machine cannot be saved again."""
    snapshots = Snapshots(tmp_path / "snapshots")
    image = hardware.drives[0].image.read_bytes()

    async def go_on(folder: Path, start: Path, key: str) -> list[str]:
        folder.mkdir()
        async with Machine(hardware, TCG, folder, io.BytesIO(), start) as machine:
            await snapshots.save(key, machine)
        return sorted(path.name for path in folder.glob("drive0*"))

    asyncio.run(saved(snapshots, hardware, tmp_path / "machine", "a" * 64))
    with snapshots.use("a" * 64) as first:
        assert first is not None
        names = asyncio.run(go_on(tmp_path / "second", first.folder, "b" * 64))
        assert names == ["drive0", "drive0.0.qcow2", "drive0.qcow2"]
    with snapshots.use("b" * 64) as second:
        assert second is not None
        names = asyncio.run(go_on(tmp_path / "third", second.folder, "c" * 64))
        assert names == ["drive0", "drive0.0.qcow2", "drive0.1.qcow2", "drive0.qcow2"]
    for key in "abc":
        with snapshots.use(key * 64) as found:
            assert found is not None, key
            assert not (found.folder / STATE).is_symlink()
    assert hardware.drives[0].image.read_bytes() == image


@pytest.mark.integration
def test_old_ones_go_and_those_in_use_stay(hardware: Hardware, tmp_path: Path) -> None:
    """If this fails, snapshots fill the disk, or vanish under a run that uses them."""
    snapshots = Snapshots(tmp_path / "snapshots")
    keys = [str(number) * 64 for number in range(KEPT + 2)]
    asyncio.run(saved(snapshots, hardware, tmp_path / "m0", keys[0]))
    with snapshots.use(keys[0]) as held:
        assert held is not None
        for number, key in enumerate(keys[1:], start=1):
            asyncio.run(saved(snapshots, hardware, tmp_path / f"m{number}", key))
        assert (held.folder / STATE).exists()
        left = {path.name for path in (tmp_path / "snapshots").iterdir()}
    assert keys[0] in left
    assert keys[-1] in left
    assert len(left) <= KEPT + 1
