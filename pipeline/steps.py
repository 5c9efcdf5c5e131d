"""The steps of the road from a release file to a booted package, wired up from the settings.

Each step first looks whether what it makes is in place already, by the hash of all that goes in.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pipeline import build as builds
from pipeline import evidence, files, log, pace, release, version
from pipeline import recipe as recipes
from pipeline import seal as seals
from pipeline.build import Build, Builder, Plan
from pipeline.ccache import Ccache
from pipeline.check.checker import Checker
from pipeline.engine.choice import EngineChoice
from pipeline.engine.job import Engine
from pipeline.errors import FailureError, HostError, UsageError
from pipeline.evidence import Evidence, Kind, UnprovenError
from pipeline.image import assembly
from pipeline.image.assembly import Image
from pipeline.image.definition import read_definition
from pipeline.release import BranchLock, Release
from pipeline.settings import Settings
from pipeline.source import GitSource, Source

if TYPE_CHECKING:
    from pipeline.reproduce.variations import Variation
    from pipeline.smoke.attach import Terminal
    from pipeline.smoke.plan import Suite


class CheckFailedError(FailureError):
    """The packages break a check."""


@dataclass(frozen=True)
class Outcome:
    """How a step on packages ended, and what it used: names and versions."""

    passed: bool
    summary: str
    tools: dict[str, str]


@dataclass(frozen=True)
class Row:
    """One line of a release's summary."""

    step: str
    seconds: float
    verdict: str


_ROAD = ("fetch", "image", "build", "check", "reproduce", "smoke", "host", "seal")
"""The steps of a release, in their order."""


@dataclass(frozen=True)
class Steps:
    """Every step for one release, with the settings of one run.

    ``without`` names features that are left out, besides those that the settings name; ``image_name`` is
    the image to use instead of the release's own. ``lock`` is what a branch stands for, in the place of the
    commit in the release file. ``series`` is laid over the release's own. ``ccache``
    lets builds of a branch take what the same compiler has compiled before.
    """

    settings: Settings
    release_name: str
    without: tuple[str, ...] = ()
    image_name: str = ""
    lock: BranchLock | None = None
    series: tuple[str, ...] = ()
    ccache: bool = False

    @cached_property
    def release(self) -> Release:
        """The release file, with the features that are in and the image that is meant."""
        features = release.read(self.release_name).features
        usual = self.settings.left_out
        unknown = set(usual) - features.keys()
        for name in sorted(unknown - release.known_features() if unknown else unknown):
            raise UsageError(f"The settings leave out {name!r}, which is no release's feature (at without).")
        found = release.read(self.release_name, {*self.without, *(n for n in usual if n in features)})
        if self.lock is not None:
            found = found.locked(self.lock)
        if self.image_name:
            read_definition(self.image_name)  # one that there is not is said before anything is fetched
        return msgspec.structs.replace(
            found, image=self.image_name or found.image, series=(*found.series_files, *self.series)
        )

    def like(self, built: Build) -> Steps:
        """The steps for a finished build: with its image, and without what was left out of it."""
        return dataclasses.replace(
            self,
            settings=msgspec.structs.replace(self.settings, without=()),
            without=built.record.without,
            image_name=built.record.image,
            lock=builds.read_lock(built.folder),
        )

    def at(self, lock: BranchLock) -> Steps:
        """The steps for what the release's branch was once."""
        return dataclasses.replace(self, lock=lock)

    @cached_property
    def engine(self) -> Engine:
        """The engine, chosen on first use."""
        choice = EngineChoice.parse(self.settings.engine)
        return choice.open(self.settings.open_store.root / "scratch")

    def fetch(self, folder: Path | None = None) -> dict[Source | GitSource, Path]:
        """Bring every source of the release into the store, from a local folder where it lies there."""
        from pipeline.sources import obtain

        settings = self.settings
        return obtain(
            self.release.sources,
            self.release.git,
            settings.open_store,
            settings.open_mirrors,
            project=release.PROJECT,
            jobs=settings.downloads,
            folder=folder,
        )

    def image(self) -> Image:
        """Make the release's image ready for use."""
        return self.named_image(self.release.image)

    def packaging_image(self) -> Image:
        """Make the image ready that has makepkg; mostly the release's image itself."""
        return self.named_image(read_definition(self.release.image).packaging or self.release.image)

    def named_image(self, name: str) -> Image:
        """Make an image ready for use; one without a lock gets it, unless locks are not to be made."""
        from pipeline.image import locking

        settings = self.settings
        if not settings.keeps_locks:
            locking.ensure(name, settings.open_store, settings.open_mirrors, jobs=settings.downloads)
        return assembly.prepare(name, settings.open_store, settings.open_mirrors, jobs=settings.downloads)

    def plan(self) -> Plan:
        """Fill the recipe; all that fixes the build's bytes is known then."""
        image, packaging = self.image(), self.packaging_image()
        rendered = recipes.render(self.release, recipes.public_mirror(packaging))
        return Plan(self.release, rendered, image, packaging, self.settings.packager)

    def recipe(self) -> Path:
        """Write the AUR folder and return it."""
        plan = self.plan()
        folder = self.settings.artifacts_folder / self.release.name / "aur"
        srcinfo = recipes.srcinfo(
            plan.recipe, plan.packaging, self.engine, self.settings.open_store.root / "scratch"
        )
        recipes.write(plan.recipe, folder)
        files.write_text(folder / ".SRCINFO", srcinfo)
        return folder

    def build(self) -> Build:
        """Build the packages, or find them built."""
        settings = self.settings
        builder = Builder(
            store=settings.open_store,
            artifacts=settings.artifacts_folder,
            engine=lambda: self.engine,
            sources=self.fetch,
            jobs=settings.compile_jobs,
            ccache=self._ccache,
        )
        return builder.build(self.plan())

    @property
    def _ccache(self) -> Ccache | None:
        size = round(self.settings.nightly.ccache * (1 << 30))
        if not self.ccache or not size:
            return None
        if self.release.branch is None:
            raise UsageError(
                f"Release {self.release.name} is not built with ccache.",
                hint="Only what follows a branch is.",
            )
        return Ccache(self.settings.open_store.root / "ccache", size)

    def newest(self) -> Build:
        """The release's newest build, with its packages verified."""
        found = builds.newest(self.settings.artifacts_folder, self.release.name)
        found.verify()
        return found

    def check(self, packages: Sequence[Path], results: Path) -> Evidence:
        """Check packages; the findings go to ``results``, and kept evidence is not made again.

        Raises CheckFailedError where one is an error; all of them are printed.
        """
        code = Path(__file__).parent / "check"
        key = _key(packages, [self.release.expected, self.release.accepted], self.release.image, code)
        return self._once(Kind.CHECK, packages, results, key, lambda: self._check(packages, results))

    def _check(self, packages: Sequence[Path], results: Path) -> Outcome:
        work = self.settings.open_store.root / "scratch"
        checker = Checker(self.packaging_image(), self.engine, work, self.release)
        aur = results / "aur"
        with log.step("Checking the packages"):
            record = checker.check(packages, aur if aur.is_dir() else None)
            for finding in record.open:
                log.info(str(finding))
        data = msgspec.json.format(msgspec.json.encode(record), indent=2)
        files.write_bytes(results / "check-findings.json", data + b"\n")
        tools = {"image": self.packaging_image().id, "engine": self.engine.name}
        return Outcome(record.passed, record.summary, tools)

    def smoke(
        self,
        packages: Sequence[Path],
        results: Path,
        over: Sequence[Path] = (),
        command: Sequence[str] = (),
    ) -> Evidence:
        """Boot the packages; verdicts, serial log and screenshots go to ``results``/smoke.

        ``over`` are packages below them, whose files theirs take the place of. ``command`` boots them again.
        """
        below = [files.sha256(path) for path in over]
        code = Path(__file__).parent / "smoke"
        key = _key(packages, below, self.release.xen_version, self.release.image, code)
        again = command or ("./inv", "smoke", self.release.name)
        work = lambda: self._smoke([*over, *packages], results / "smoke", again)  # noqa: E731
        return self._once(Kind.SMOKE, packages, results, key, work)

    def smoke_some(
        self,
        packages: Sequence[Path],
        output: Path,
        command: Sequence[str],
        suite: Suite,
        terminal: Terminal | None = None,
    ) -> str:
        """Boot the packages for some cases only, which is no evidence; returns how it ended.

        ``command`` makes all of them again; ``terminal`` is attached to the machine of its case. Raises
        CheckFailedError.
        """
        outcome = self._smoke(packages, output, command, suite, terminal)
        if not outcome.passed:
            raise CheckFailedError(f"Smoke failed: {outcome.summary}.")
        return outcome.summary

    def _smoke(
        self,
        packages: Sequence[Path],
        output: Path,
        command: Sequence[str],
        suite: Suite | None = None,
        terminal: Terminal | None = None,
    ) -> Outcome:
        from pipeline.fetch import fetch
        from pipeline.smoke import supplies
        from pipeline.smoke.page import PAGE
        from pipeline.smoke.results import Verdict
        from pipeline.smoke.suite import smoke

        image = self.image()
        kernel = image.kernel
        if kernel is None:
            raise UsageError(f"Image {image.name} names no kernel to boot (at kernel of its definition).")
        settings = self.settings
        with log.step("Booting the packages"):
            source, more = kernel.source, supplies.sources()
            everything = [source, *more.values()]
            found = fetch(everything, settings.open_store, settings.open_mirrors, jobs=settings.downloads)
            result = smoke(
                packages,
                image_root=image.root,
                kernel=found[source.sha256],
                supplies={name: found[each.sha256] for name, each in more.items()},
                xen_version=self.release.xen_version,
                output=output,
                scratch=settings.open_store.root / "smoke",
                suite=suite,
                rerun=lambda case: (*command, "--case", case),
                terminal=terminal,
            )
        tools = {"image": image.id, "kernel": source.name, "qemu": result.qemu_version}
        failed = "; ".join(f"{f.title}: {f.evidence}" for f in result.failures)
        where = f"Verdicts, consoles and timeline: {output / PAGE}"
        for note in result.notes:
            log.warn(note)
        if result.verdict is Verdict.INFRASTRUCTURE:
            raise HostError(f"The test bed failed, which says nothing of the packages: {failed}", hint=where)
        log.info(where)
        # Where nothing was applicable, nothing was proven; asked for a few cases only, that is an answer.
        good = (Verdict.PASS,) if suite is None else (Verdict.PASS, Verdict.NOT_APPLICABLE)
        if result.verdict not in good:
            return Outcome(False, failed or "; ".join(result.notes).rstrip(".") or result.summary, tools)
        return Outcome(True, result.summary, tools)

    def smoke_host(
        self,
        packages: Sequence[Path],
        results: Path,
        cases: Sequence[str] = (),
        command: Sequence[str] = (),
        terminal: Terminal | None = None,
    ) -> str:
        """Make the full tier of the smoke boots: a whole host, on which the packages are installed.

        Verdicts and logs go to ``results``/host. ``cases`` names some to make alone. All of them are
        not made again on packages that have passed. ``command`` makes them again, ``terminal`` is
        attached to the machine of its case. Returns how it ended.
        Raises CheckFailedError, and UsageError where no host's image goes with the release's.
        """
        name = self.host_image
        if not name:
            raise UsageError(f"Image {self.release.image} names no host to install on (at dom0).")
        if cases:
            return self._smoke_host(packages, name, results / "host-some", command, cases, terminal)
        code = Path(__file__).parent / "smoke"
        key = _key(packages, self.release.xen_version, self.named_image(name).id, code)
        kept = results / "host" / "passed"
        if kept.is_file() and kept.read_text(encoding="utf-8").startswith(f"{key}\n"):
            summary = kept.read_text(encoding="utf-8").partition("\n")[2].strip()
            log.info(f"smoke, full tier: {summary} (on these very packages, before)")
            return summary
        kept.unlink(missing_ok=True)
        summary = self._smoke_host(packages, name, kept.parent, command)
        files.write_text(kept, f"{key}\n{summary}\n")
        return summary

    @property
    def host_image(self) -> str:
        """The image of the host that the full tier installs on; empty where none is named."""
        return read_definition(self.release.image).dom0 or ""

    def _smoke_host(
        self,
        packages: Sequence[Path],
        name: str,
        output: Path,
        command: Sequence[str],
        cases: Sequence[str] = (),
        terminal: Terminal | None = None,
    ) -> str:
        from pipeline.fetch import fetch
        from pipeline.smoke.full.tier import smoke_host
        from pipeline.smoke.results import Verdict

        image, settings = self.named_image(name), self.settings
        if image.kernel is None:
            raise UsageError(f"Image {name} names no kernel to boot (at kernel of its definition).")
        with log.step("Installing the packages on a host, and starting it"):
            source = image.kernel.source
            found = fetch([source], settings.open_store, settings.open_mirrors, jobs=1)
            result = smoke_host(
                packages,
                image_root=image.root,
                kernel=found[source.sha256],
                xen_version=self.release.xen_version,
                output=output,
                scratch=settings.open_store.root / "smoke",
                only=cases,
                rerun=command or ("./inv", "smoke", self.release.name, "--suite", "full"),
                terminal=terminal,
            )
        failed = "; ".join(f"{f.title}: {f.evidence}" for f in result.failures)
        log.info(f"Results and serial logs: {output}")
        if result.verdict is Verdict.INFRASTRUCTURE:
            raise HostError(f"The test bed failed, which says nothing of the packages: {failed}")
        if result.verdict is not Verdict.PASS:
            raise CheckFailedError(f"Smoke failed in the full tier: {failed}.")
        passed = sum(case.verdict is Verdict.PASS for case in result.cases)
        return f"{passed} cases passed on an installed host under {result.accelerator.kind}"

    def reproduce(self, build: Build) -> Evidence:
        """Build again what a build was made from, with every variation, and compare the bytes.

        Where they differ, both and the reports go to ``reproduce`` in the build's folder.
        """
        from pipeline.reproduce.variations import Variation

        key = _key(build.packages, build.record.build_id, Path(__file__).parent / "reproduce")
        work = lambda: self._reproduce(build, tuple(Variation))  # noqa: E731
        return self._once(Kind.REPRODUCE, build.packages, build.folder, key, work)

    def reproduce_by(self, build: Build, variations: Sequence[Variation]) -> str:
        """Build again with some variations only, which is no evidence; returns how it ended.

        Raises CheckFailedError where bytes differ.
        """
        outcome = self._reproduce(build, variations)
        if not outcome.passed:
            raise CheckFailedError(f"Reproduce failed: {outcome.summary}.")
        return outcome.summary

    def _reproduce(self, build: Build, variations: Sequence[Variation]) -> Outcome:
        from pipeline.reproduce.run import reproduce

        results = build.folder / "reproduce"
        found = reproduce(self.like(build), build, variations, results)
        if not found.passed:
            log.info(f"Both builds' packages and the reports: {results}")
        log.info(f"built again in {log.duration(found.seconds)}")
        return Outcome(found.passed, str(found), {"image": build.record.image_id, "engine": found.engine})

    def seal(self, build: Build) -> Path:
        """Write the table of a build's files, and sign it and the packages where the settings name a key."""
        build.verify()
        return seals.seal(build.folder, build.hashes, self.settings.signing_key)

    def _once(
        self, kind: Kind, packages: Sequence[Path], results: Path, key: str, work: Callable[[], Outcome]
    ) -> Evidence:
        """Do a step unless its evidence is in place; raises CheckFailedError where it did not pass."""
        hashes = {path.name: files.sha256(path) for path in packages}
        found = _kept(results, kind)
        if found is None or found.key != key or not found.passed or not found.covers(hashes):
            outcome = work()
            found = Evidence(
                kind=kind,
                packages=hashes,
                passed=outcome.passed,
                summary=outcome.summary,
                tools={"pipeline": version.commit(), **outcome.tools},
                finished=evidence.now(),
                key=key,
            )
            evidence.write(results, found)
        else:
            log.info(f"{kind}: {found.summary} (on these very packages, before)")
        if not found.passed:
            raise CheckFailedError(f"{kind.capitalize()} failed: {found.summary}.")
        return found

    def run_all(self, *, reproduce: bool = True, full: bool = False) -> tuple[Build, list[Row]]:
        """Everything in order; returns the build and a row a step.

        ``reproduce`` and ``full`` say whether it is built again, and installed on a whole host where the
        release's image names one.
        """
        rows: list[Row] = []
        left_out = {"" if reproduce else "reproduce", "" if full and self.host_image else "host"}
        names = [name for name in _ROAD if name not in left_out]

        def timed(step: str, work: Callable[[], object]) -> object:
            keys = [f"release {self.release.name}: {name}" for name in names[len(rows) :]]
            if left := pace.left(keys):
                log.info(f"{step} ({len(rows) + 1} of {len(names)}): what is left took {log.duration(left)}")
            start = time.monotonic()
            result = work()
            seconds = time.monotonic() - start
            pace.note(keys[0], seconds)
            verdict = result.summary if isinstance(result, Evidence) else "done"
            verdict = result if isinstance(result, str) else verdict
            rows.append(Row(step, seconds, verdict))
            return result

        timed("fetch", self.fetch)
        timed("image", self.image)
        built = timed("build", self.build)
        assert isinstance(built, Build)
        timed("check", lambda: self.check(built.packages, built.folder))
        if reproduce:
            timed("reproduce", lambda: self.reproduce(built))
        timed("smoke", lambda: self.smoke(built.packages, built.folder))
        if full and self.host_image:
            timed("host", lambda: self.smoke_host(built.packages, built.folder))
        elif full:
            log.info(f"Not installed on a whole host: none is named for {self.release.image} (at dom0).")
        timed("seal", lambda: self.seal(built))
        return built, rows


def _key(packages: Sequence[Path], *inputs: object) -> str:
    """Hash what a step depends on: the packages' bytes, values, and the files of its own code."""
    digest = hashlib.sha256()
    for package in sorted(packages):
        digest.update(files.sha256(package).encode())
    for value in inputs:
        if isinstance(value, Path):
            for path in sorted(p for p in [value, *value.rglob("*")] if p.is_file() and p.suffix != ".pyc"):
                digest.update(path.read_bytes())
        else:
            digest.update(msgspec.json.encode(value, order="sorted"))
    return digest.hexdigest()


def _kept(folder: Path, kind: Kind) -> Evidence | None:
    try:
        return evidence.read(folder, kind)
    except UnprovenError as e:
        log.warn(f"{e.message} It is made again.")
        return None
