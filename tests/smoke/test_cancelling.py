"""Ctrl-C, whatever the machines are at: QEMU is gone, and nothing complains."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
from pathlib import Path

import pytest

from pipeline.smoke.accelerator import Accelerator, Kind
from pipeline.smoke.cancelling import all_of, to_the_end
from pipeline.smoke.hardware import Direct, Hardware
from pipeline.smoke.machine import Machine
from tests.smoke.silent_xen import silent_xen


def test_what_must_not_be_left_is_done() -> None:
    """If this fails, a saved machine or a process is left half done behind Ctrl-C."""
    done: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0.05)
        done.append("done")

    async def cancelled() -> None:
        task = asyncio.ensure_future(to_the_end(work()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert done == ["done"]


def test_all_are_over_when_it_is() -> None:
    """If this fails, a machine is still being closed when the program ends."""
    over: list[float] = []

    async def work(seconds: float) -> None:
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(seconds)
            over.append(seconds)

    async def cancelled() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await all_of(work(seconds) for seconds in (0, 0.1, 0.2))
        assert over == [0, 0.1, 0.2]

    asyncio.run(cancelled())


@pytest.mark.integration
def test_machines_end_in_silence(tmp_path: Path) -> None:
    """If this fails, Ctrl-C prints tracebacks, or leaves QEMU running."""
    for name, data in {"xen": silent_xen(), "kernel": b"kernel"}.items():
        (tmp_path / name).write_bytes(data)
    hardware = Hardware(Direct(tmp_path / "xen", tmp_path / "kernel", None), memory=64)
    complaints: list[object] = []
    machines: list[Machine] = []

    async def one(folder: Path) -> None:
        folder.mkdir()
        machines.append(Machine(hardware, Accelerator(Kind.TCG, ""), folder, io.BytesIO()))
        async with machines[-1] as machine:
            while True:
                await machine.stop()
                await machine.resume()

    async def both(folder: Path, seconds: float) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        folder.mkdir()
        async with asyncio.timeout(seconds):
            await all_of(one(folder / name) for name in "ab")

    for tenth in range(1, 13):
        with contextlib.suppress(TimeoutError):
            asyncio.run(both(tmp_path / str(tenth), tenth / 10))
        gc.collect()
    assert not complaints
    started = [machine for machine in machines if hasattr(machine, "_qemu")]
    assert started
    assert not any(Path(f"/proc/{machine.pid}").exists() for machine in started)
