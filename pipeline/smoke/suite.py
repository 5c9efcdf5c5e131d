"""Boot packages in a virtual machine, and say what holds.

``smoke`` is what the command calls; a boot that fails for reasons of the test bed is tried once more.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pipeline import log
from pipeline.errors import ExitStatus, PipelineError
from pipeline.files import sha256, write_bytes
from pipeline.run import run
from pipeline.scratch import scratch as scratch_folder
from pipeline.smoke import results
from pipeline.smoke.accelerator import Accelerator, choose
from pipeline.smoke.checks import FAST, Check, Limits, Subject
from pipeline.smoke.dom0 import MODULES, MODULES_OF_SOME, BootFiles, assemble, find_xen
from pipeline.smoke.errors import CheckFailedError, HangError, InfrastructureError
from pipeline.smoke.kernel import Kernel, read_kernel_package
from pipeline.smoke.layers import read_packages
from pipeline.smoke.machine import Machine, Shape
from pipeline.smoke.results import MAX_ATTEMPTS, CheckResult, Input, SmokeResult, Verdict

_CACHE_FORMAT = 2


@dataclass
class Attempt:
    """One boot and what was found; filled in while it runs, so that a broken one leaves its trace."""

    checks: list[CheckResult] = field(default_factory=list)
    serial: io.BytesIO = field(default_factory=io.BytesIO)
    dom0_log: str = ""
    command: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    found: str | None = None
    seconds: float = 0.0


def smoke(
    packages: Sequence[Path],
    *,
    image_root: Path,
    kernel: Path,
    xen_version: str,
    output: Path,
    scratch: Path,
    limits: Limits | None = None,
    checks: Sequence[Check] = FAST,
    accelerator: Accelerator | None = None,
) -> SmokeResult:
    """Boot packages and check what they do; write the evidence to ``output``.

    ``packages`` are .pkg.tar.* files, the one with the hypervisor among them; ``image_root`` an unpacked
    root file system with the libraries that they were built with; ``kernel`` a Debian kernel package;
    ``xen_version`` what Xen must say that it is. ``scratch`` keeps the unpacked kernel from run to run.
    ``accelerator`` is chosen by probing where it is None.

    Whatever the machine does ends in the result's verdict. Raises PackageContentError,
    KernelImageError or ToolMissingError where no machine can be made.
    """
    limits = limits or Limits()
    begin = time.monotonic()
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with log.step("Assembling the test host from the package"):
        layer = read_packages(packages)
        xen = find_xen(layer)
        files = assemble(layer, image_root, cached_kernel(kernel, scratch))
    accelerator = accelerator or choose(xen)
    log.info(f"accelerator: {accelerator.kind} ({accelerator.reason})")
    version = run(["qemu-system-x86_64", "--version"]).output.splitlines()[0]
    inputs = (*(_input(path) for path in (*packages, kernel)), *_parts(files))
    prepared = time.monotonic() - begin
    serials: list[bytes] = []
    for number in range(1, MAX_ATTEMPTS + 1):
        # In a folder of its own: what is left there of killed runs is swept away.
        with scratch_folder(scratch / "machines", "smoke") as folder, log.step("Booting Xen"):
            attempt = asyncio.run(boot(files, accelerator, folder, xen_version, limits, checks))
        serials.append(attempt.serial.getvalue())
        verdict = results.overall(tuple(attempt.checks))
        if verdict is not Verdict.INFRASTRUCTURE or number == MAX_ATTEMPTS:
            break
        log.warn("the test bed failed; once more, from a cold start")
    result = SmokeResult(
        verdict=verdict,
        xen_version=xen_version,
        xen_found=attempt.found,
        checks=tuple(attempt.checks),
        accelerator=accelerator,
        qemu_version=version,
        qemu_command=attempt.command,
        events=attempt.events,
        inputs=inputs,
        attempts=number,
        started=started,
        timings={
            "prepare": round(prepared, 3),
            "machine": round(attempt.seconds, 3),
            "total": round(time.monotonic() - begin, 3),
        },
    )
    results.write(result, output, serials, attempt.dom0_log)
    return result


def _input(path: Path) -> Input:
    return Input(path.name, path.stat().st_size, sha256(path))


def _parts(files: BootFiles) -> list[Input]:
    sizes = {"xen": files.xen, "kernel": files.kernel, "initramfs": files.initramfs}
    return [Input(name, len(sizes[name]), digest) for name, digest in files.hashes().items()]


class _CachedKernel(msgspec.Struct, frozen=True):
    release: str
    vmlinux: bytes
    modules: dict[str, bytes]


def cached_kernel(package: Path, scratch: Path) -> Kernel:
    """Read a kernel package, or what an earlier run kept of the same one (5 s less).

    The kept file is found by the hash of the package and of what was asked of it, and carries its own
    hash: a damaged one is made anew.
    """
    asked = " ".join((*MODULES, "?", *MODULES_OF_SOME))
    key = hashlib.sha256(f"{_CACHE_FORMAT} {sha256(package)} {asked}".encode()).hexdigest()
    file = scratch / f"kernel-{key[:32]}.msgpack"
    if file.is_file():
        data = file.read_bytes()
        if hashlib.sha256(data[32:]).digest() == data[:32]:
            kept = msgspec.msgpack.decode(data[32:], type=_CachedKernel)
            return Kernel(kept.release, kept.vmlinux, kept.modules)
        log.warn(f"{file} is damaged, and made anew.")
    kernel = read_kernel_package(package, MODULES, MODULES_OF_SOME)
    data = msgspec.msgpack.encode(_CachedKernel(kernel.release, kernel.vmlinux, dict(kernel.modules)))
    write_bytes(file, hashlib.sha256(data).digest() + data)
    return kernel


async def boot(
    files: BootFiles,
    accelerator: Accelerator,
    folder: Path,
    xen_version: str,
    limits: Limits,
    checks: Sequence[Check] = FAST,
    shape: Shape | None = None,
) -> Attempt:
    """Boot once and make the checks in order; the failure of a vital one ends the run."""
    attempt = Attempt()
    machine = Machine(files, accelerator, folder, attempt.serial, shape)
    todo = list(checks)
    try:
        async with asyncio.timeout(limits.total), machine:
            attempt.command = tuple(machine.command)
            subject = Subject(machine, xen_version, limits)
            while todo and await _one(todo[0], subject, attempt):
                todo.pop(0)
                if len(todo) == 1 and any(check.verdict is Verdict.FAIL for check in attempt.checks):
                    attempt.dom0_log = await _dom0_log(subject)
            # The one that ended the run has its own verdict already.
            todo = todo[1:]
    except TimeoutError:
        error = HangError(f"The run was not over after {limits.total:g} s.")
        attempt.checks += [_judge(check, error, machine.seconds, 0.0, tail(machine)) for check in todo[:1]]
        todo = todo[1:]
    except PipelineError as e:
        # QEMU itself did not come up: no check has been made.
        attempt.checks += [_judge(check, e, machine.seconds, 0.0) for check in todo[:1]]
        todo = todo[1:]
    attempt.command = tuple(machine.command)
    attempt.events = tuple(machine.events)
    attempt.found = machine.watcher.banner
    attempt.seconds = machine.seconds
    cause = "Not made, because the run had ended."
    for check in todo:
        attempt.checks.append(
            CheckResult(name=check.name, title=check.title, verdict=Verdict.SKIPPED, evidence=cause)
        )
    return attempt


async def _one(check: Check, subject: Subject, attempt: Attempt) -> bool:
    """Make one check and note its verdict; whether the run can go on."""
    machine = subject.machine
    begin = machine.seconds
    try:
        evidence = await check.run(subject)
    except PipelineError as e:
        seconds = machine.seconds - begin
        attempt.checks.append(_judge(check, e, begin, seconds, tail(machine)))
        log.error(f"{check.title}: {type(e).__name__} after {log.duration(seconds)}: {e.message}", e.hint)
        return not check.vital and isinstance(e, CheckFailedError | HangError)
    seconds = machine.seconds - begin
    attempt.checks.append(
        CheckResult(
            name=check.name,
            title=check.title,
            verdict=Verdict.PASS,
            evidence=evidence,
            begin=round(begin, 3),
            seconds=round(seconds, 3),
        )
    )
    log.info(f"{check.title}: pass ({log.duration(seconds)})")
    return True


def _judge(check: Check, error: PipelineError, begin: float, seconds: float, serial: str = "") -> CheckResult:
    host = isinstance(error, InfrastructureError) or error.status is ExitStatus.HOST
    if serial:
        serial = f"Last lines of the serial log:\n{serial}"
    detail = "\n".join(part for part in (error.hint, serial) if part)
    return CheckResult(
        name=check.name,
        title=check.title,
        verdict=Verdict.INFRASTRUCTURE if host else Verdict.FAIL,
        evidence=error.message,
        failure=type(error).__name__,
        detail=detail,
        begin=round(begin, 3),
        seconds=round(seconds, 3),
    )


def tail(machine: Machine, count: int = 40) -> str:
    """Return the last lines of the serial log."""
    return "\n".join(f"[{line.seconds:10.3f}] {line.text}" for line in machine.watcher.tail[-count:])


async def _dom0_log(subject: Subject) -> str:
    """Ask dom0 for what it and Xen logged; nothing, where it does not answer."""
    try:
        reply = await subject.run(
            "xl dmesg | tail -n 200; for log in /var/log/xen/*.log /var/log/xen/console/*; do\n"
            'if [ -f "$log" ]; then echo "== $log"; tail -c 20000 "$log"; fi; done'
        )
    except PipelineError as e:
        return f"No log of dom0: {e.message}\n"
    return reply.output
