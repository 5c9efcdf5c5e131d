"""Install packages on a host, start it by GRUB and by UEFI, restart it, and say what holds."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import re
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import filelock
import msgspec

from pipeline import log, package
from pipeline.errors import UsageError
from pipeline.files import sha256, write_text
from pipeline.run import run
from pipeline.scratch import scratch as scratch_folder
from pipeline.smoke import page, results
from pipeline.smoke.accelerator import Accelerator, choose
from pipeline.smoke.attach import Terminal
from pipeline.smoke.case import Case, Facts, Limits
from pipeline.smoke.cases.install import CASES as INSTALL
from pipeline.smoke.cases.installed import AGAIN, FIRST, UEFI
from pipeline.smoke.full.disk import write_disk
from pipeline.smoke.full.root import ROOT_UUID, Root, lay_out
from pipeline.smoke.hardware import Drive, Firmware, Hardware, Linux
from pipeline.smoke.hypervisor import find_xen
from pipeline.smoke.layers import read_packages
from pipeline.smoke.results import SERIAL, CaseResult, Input, SmokeResult, Verdict
from pipeline.smoke.runner import Run, Runner

LIMITS = Limits(banner=120, boot=600, command=60, xl=180, power_off=300, total=3600)
"""A start of systemd and a stock kernel take an emulated machine a minute where nothing else runs."""
MEMORY = 1024
KEPT_DISKS = 2
"""How many hosts' disks are kept, of 400 MB each."""
_PLAIN = f"root=UUID={ROOT_UUID} rw console=ttyS0 panic=5 quiet systemd.show_status=0"
_DEPENDENCY = re.compile(r"([^<>=]+)(?:[<>=]+(.+))?")


@dataclass(frozen=True)
class Stage:
    """One start of the host: its name, the cases that are made, and what it is started with."""

    name: str
    title: str
    cases: tuple[Case, ...]


STAGES = (
    Stage("install", "Installing on a host without Xen", INSTALL),
    Stage("grub", "Starting it by GRUB", FIRST),
    Stage("again", "Starting it again", AGAIN),
    Stage("uefi", "Starting it by UEFI", UEFI),
)


@dataclass(frozen=True)
class Base:
    """A host without Xen: its disk, and its kernel, initramfs and UEFI firmware."""

    disk: Path
    kernel: Path
    initramfs: Path
    firmware: Path


@dataclass
class FullTier:
    """The host of one set of packages; ``folder`` holds its drives from one start to the next."""

    runner: Runner
    base: Base
    packages: Path
    folder: Path
    runs: list[tuple[Stage, Run]] = field(default_factory=list)

    def hardware(self, stage: Stage) -> Hardware:
        """What a stage starts the host with."""
        boot: Linux | Firmware = Firmware(self.base.firmware if stage.name == "uefi" else None)
        if stage.name == "install":
            boot = Linux(self.base.kernel, self.base.initramfs, _PLAIN)
        return Hardware(
            boot,
            memory=MEMORY,
            chipset="q35" if stage.name == "uefi" else "pc",
            drives=(Drive(self.base.disk), Drive(self.packages)),
            network=True,
        )

    async def make(self, stages: Sequence[Stage]) -> None:
        """Go through the stages in order; each needs the one before."""
        for stage in stages:
            with log.step(stage.title):
                done = await self.runner.in_order(self.hardware(stage), stage.cases, kept=self.folder)
            self.runs.append((stage, done))
            # What is vital to a stage is so to the next: without it, there is nothing to start.
            if any(r.verdict is not Verdict.PASS for r in done.cases if _vital(stage, r)):
                return

    def collect(
        self, stages: Sequence[Stage], rerun: Sequence[str]
    ) -> tuple[tuple[CaseResult, ...], dict[str, bytes]]:
        """Return all verdicts, and all logs by their path in the output folder."""
        cases: list[CaseResult] = []
        logs: dict[str, bytes] = {}
        for stage, done in self.runs:
            # The last start's is the one that a failure is looked for in.
            serial = SERIAL if done is self.runs[-1][1] else f"serial.{stage.name}.log"
            logs[serial] = done.serial.getvalue()
            for case in done.cases:
                kept = {
                    f"{results.CASES}/{case.name}/{name}": text.encode(errors="replace")
                    for (owner, name), text in done.logs.items()
                    if owner == case.name
                }
                logs |= kept
                again = (*rerun, "--case", case.name) if rerun else ()
                cases.append(msgspec.structs.replace(case, logs=(serial, *kept), rerun=again))
        made = {stage.name for stage, _ in self.runs}
        cases += [_skipped(case) for stage in stages if stage.name not in made for case in stage.cases]
        return tuple(cases), logs


def _vital(stage: Stage, result: CaseResult) -> bool:
    return any(case.vital for case in stage.cases if case.name == result.name)


def _skipped(case: Case) -> CaseResult:
    reason = "Not made, because the host did not come that far."
    return CaseResult(
        name=case.name, title=case.title, tier=case.tier, verdict=Verdict.SKIPPED, evidence=reason
    )


def chosen(only: Sequence[str]) -> tuple[Stage, ...]:
    """Return the stages up to the last that has a named case, with that and what is vital; no name is all.

    Raises UsageError for a name that no case has.
    """
    if not only:
        return STAGES
    known = [case.name for stage in STAGES for case in stage.cases]
    for name in only:
        if name not in known:
            raise UsageError(
                f"There is no case {name!r} in the full tier.", hint=f"Cases: {', '.join(known)}."
            )
    last = max(number for number, stage in enumerate(STAGES) for case in stage.cases if case.name in only)
    return tuple(_some(stage, only, whole=number < last) for number, stage in enumerate(STAGES[: last + 1]))


def _some(stage: Stage, only: Sequence[str], *, whole: bool) -> Stage:
    """Leave of a stage what is vital or named; the end only where it is to end as usual (``whole``)."""
    named = [number for number, case in enumerate(stage.cases) if case.name in only]
    cases = [
        case
        for number, case in enumerate(stage.cases)
        if case.name in only or (case.vital and (whole or number < named[-1]))
    ]
    return Stage(stage.name, stage.title, tuple(cases))


def smoke_host(
    packages: Sequence[Path],
    *,
    image_root: Path,
    kernel: Path,
    xen_version: str,
    output: Path,
    scratch: Path,
    only: Sequence[str] = (),
    rerun: Sequence[str] = (),
    limits: Limits = LIMITS,
    accelerator: Accelerator | None = None,
    terminal: Terminal | None = None,
) -> SmokeResult:
    """Make the cases of the full tier on packages; write the evidence to ``output``.

    ``image_root`` is the unpacked image of a host with systemd, pacman and GRUB, in a folder named by its
    hash; the other arguments are those of suite.smoke, and so is what is raised. ``rerun`` is the command
    to which ``--case`` is appended.
    """
    begin = time.monotonic()
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    stages = chosen(only)
    accelerator = accelerator or choose(find_xen(read_packages(packages)))
    log.info(f"accelerator: {accelerator.kind} ({accelerator.reason})")
    runner = Runner(Facts(xen_version, accelerator), limits, scratch / "machines", terminal=terminal)
    with (
        base(image_root, kernel, scratch / "hosts") as found,
        scratch_folder(scratch / "machines", "host") as work,
    ):
        prepared = time.monotonic() - begin
        (work / "machine").mkdir()
        _pack(packages, work / "packages.tar")
        tier = FullTier(runner, found, work / "packages.tar", work / "machine")
        asyncio.run(tier.make(stages))
    cases, logs = tier.collect(stages, rerun)
    last = tier.runs[-1][1]
    result = SmokeResult(
        verdict=results.overall(cases),
        xen_version=xen_version,
        xen_found=next((done.found for _, done in reversed(tier.runs) if done.found), None),
        cases=cases,
        accelerator=accelerator,
        qemu_version=run(["qemu-system-x86_64", "--version"]).output.splitlines()[0],
        qemu_command=last.command,
        events=last.events,
        inputs=tuple(Input(path.name, path.stat().st_size, sha256(path)) for path in (*packages, kernel)),
        attempts=len(tier.runs),
        snapshot=None,
        started=started,
        timings={
            "prepare": round(prepared, 3),
            **{stage.name: round(done.seconds, 3) for stage, done in tier.runs},
            "total": round(time.monotonic() - begin, 3),
        },
    )
    results.write(result, output, logs)
    page.write(result, output)
    return result


@contextmanager
def base(image_root: Path, kernel: Path, folder: Path) -> Iterator[Base]:
    """Give the host without Xen, made now or by an earlier run from the same image, kernel and code.

    A disk that is damaged is made anew; one that is in use is not removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(f"{image_root.parent.name} {sha256(kernel)}".encode())
    here = Path(__file__).parent
    code = [here.parent / "agent.sh", here / "root.py", here / "disk.py", *here.glob("*.sh")]
    for path in sorted([*code, *(p for p in (here / "root").rglob("*") if p.is_file())]):
        digest.update(path.read_bytes())
    kept = folder / digest.hexdigest()[:32]
    with scratch_folder(folder, "used") as used:
        with filelock.FileLock(folder / "lock"):
            if not _sound(kept):
                with log.step("Making the disk of a host without Xen"):
                    _make(image_root, kernel, folder, kept)
            _prune(folder, kept)
            # Another name for the same bytes, which pruning by another run does not take away.
            for path in kept.iterdir():
                (used / path.name).hardlink_to(path)
        yield Base(*(used / name for name in ("host.img", "kernel", "initramfs", "firmware")))


def _make(image_root: Path, kernel: Path, folder: Path, kept: Path) -> None:
    with scratch_folder(folder, "host") as work:
        done = work / "done"
        done.mkdir()
        root = Root(work / "root")
        lay_out(image_root, kernel, root.path)
        write_disk(root, work / "host.img")
        (work / "host.img").rename(done / "host.img")
        (root.path / "boot/vmlinuz-linux").rename(done / "kernel")
        (root.path / "boot/initramfs-linux.img").rename(done / "initramfs")
        (root.path / "usr/share/ovmf/OVMF.fd").rename(done / "firmware")
        lines = [f"{sha256(path)}  {path.name}\n" for path in sorted(done.iterdir())]
        write_text(done / "SHA256SUMS", "".join(lines))
        if kept.exists():
            kept.rename(work / "damaged")
        done.rename(kept)


def _sound(kept: Path) -> bool:
    try:
        lines = (kept / "SHA256SUMS").read_text().splitlines()
        damaged = [
            name for digest, _, name in (x.partition("  ") for x in lines) if sha256(kept / name) != digest
        ]
    except FileNotFoundError as e:
        if kept.exists():
            log.warn(f"{e.filename} is gone; the host's disk is made anew.")
        return False
    if damaged:
        log.warn(f"{kept / damaged[0]} is damaged, and made anew.")
    return not damaged


def _prune(folder: Path, kept: Path) -> None:
    kept.touch()
    others = [path for path in folder.iterdir() if len(path.name) == len(kept.name) and path != kept]
    others.sort(key=lambda path: path.stat().st_mtime)
    for old in others[: 1 - KEPT_DISKS]:
        for path in old.iterdir():
            path.unlink()
        old.rmdir()


def _pack(packages: Sequence[Path], target: Path) -> None:
    """Write the drive that brings the packages: a tar of them, and of what pacman is to take as installed."""
    asked = [name for path in packages for name in package.read(path).pkginfo.get("depend", [])]
    words = target.with_name("assumed")
    words.write_text("".join(f"--assume-installed {name}\n" for name in assumed(asked)))
    with tarfile.open(target, "w") as tar:
        for path in (*packages, words):
            tar.add(path, path.name)


def assumed(dependencies: Sequence[str]) -> list[str]:
    """Return what satisfies dependencies, as pacman's --assume-installed takes it: NAME, or NAME=VERSION."""
    matches = (_DEPENDENCY.fullmatch(dependency) for dependency in dict.fromkeys(dependencies))
    return [f"{m[1]}={m[2]}" if m[2] else m[1] for m in matches if m]
