"""What is proven of packages: checked, built again, booted. Each proof is evidence for exactly their bytes.

A proof that passed on the same bytes, by the same code, is not made again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pipeline import boot, evidence, files, log, version
from pipeline.build import Build
from pipeline.check.checker import Checker
from pipeline.errors import UsageError
from pipeline.evidence import Evidence, Kind, Outcome, ProofFailedError, UnprovenError
from pipeline.smoke.choice import SOME_ON_HOST
from pipeline.steps import Steps

if TYPE_CHECKING:
    from pipeline.reproduce.variations import Variation
    from pipeline.smoke.attach import Terminal
    from pipeline.smoke.plan import Suite


@dataclass(frozen=True)
class Proofs:
    """The proofs of one release's packages, made with its steps."""

    steps: Steps

    def check(self, packages: Sequence[Path], results: Path) -> Evidence:
        """Check packages; the findings go to ``results``, and kept evidence is not made again.

        Raises ProofFailedError where one is an error; all of them are printed.
        """
        code = Path(__file__).parent / "check"
        key = _key(
            packages,
            [self.steps.release.expected, self.steps.release.accepted],
            self.steps.release.image,
            code,
        )
        return self._once(Kind.CHECK, packages, results, key, lambda: self._check(packages, results))

    def _check(self, packages: Sequence[Path], results: Path) -> Outcome:
        work = self.steps.settings.open_store.root / "scratch"
        checker = Checker(self.steps.packaging_image(), self.steps.engine, work, self.steps.release)
        aur = results / "aur"
        with log.step("Checking the packages"):
            record = checker.check(packages, aur if aur.is_dir() else None)
            for finding in record.open:
                log.info(str(finding))
        data = msgspec.json.format(msgspec.json.encode(record), indent=2)
        files.write_bytes(results / "check-findings.json", data + b"\n")
        tools = {"image": self.steps.packaging_image().id, "engine": self.steps.engine.name}
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
        key = _key(packages, below, self.steps.release.xen_version, self.steps.release.image, code)
        again = command or ("./inv", "smoke", self.steps.release.name)
        work = lambda: boot.fast(self.steps, [*over, *packages], results / "smoke", again)  # noqa: E731
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
        ProofFailedError.
        """
        outcome = boot.fast(self.steps, packages, output, command, suite, terminal)
        if not outcome.passed:
            raise ProofFailedError(f"Smoke failed: {outcome.summary}.")
        return outcome.summary

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
        Raises ProofFailedError, and UsageError where no host's image goes with the release's.
        """
        name = self.steps.host_image
        if not name:
            raise UsageError(f"Image {self.steps.release.image} names no host to install on (at dom0).")
        if cases:
            return boot.host(self.steps, packages, name, results / SOME_ON_HOST, command, cases, terminal)
        code = Path(__file__).parent / "smoke"
        key = _key(packages, self.steps.release.xen_version, self.steps.named_image(name).id, code)
        kept = results / "host" / "passed"
        if kept.is_file() and kept.read_text(encoding="utf-8").startswith(f"{key}\n"):
            summary = kept.read_text(encoding="utf-8").partition("\n")[2].strip()
            log.info(f"smoke, full tier: {summary} (on these very packages, before)")
            return summary
        kept.unlink(missing_ok=True)
        summary = boot.host(self.steps, packages, name, kept.parent, command)
        files.write_text(kept, f"{key}\n{summary}\n")
        return summary

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

        Raises ProofFailedError where bytes differ.
        """
        outcome = self._reproduce(build, variations)
        if not outcome.passed:
            raise ProofFailedError(f"Reproduce failed: {outcome.summary}.")
        return outcome.summary

    def _reproduce(self, build: Build, variations: Sequence[Variation]) -> Outcome:
        from pipeline.reproduce.run import reproduce

        results = build.folder / "reproduce"
        found = reproduce(self.steps.like(build), build, variations, results)
        if not found.passed:
            log.info(f"Both builds' packages and the reports: {results}")
        log.info(f"built again in {log.duration(found.seconds)}")
        return Outcome(found.passed, str(found), {"image": build.record.image_id, "engine": found.engine})

    def _once(
        self, kind: Kind, packages: Sequence[Path], results: Path, key: str, work: Callable[[], Outcome]
    ) -> Evidence:
        """Do a step unless its evidence is in place; raises ProofFailedError where it did not pass."""
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
            raise ProofFailedError(f"{kind.capitalize()} failed: {found.summary}.")
        return found


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
