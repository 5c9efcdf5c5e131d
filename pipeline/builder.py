"""A recipe, its sources and an image become packages; the same inputs are never built twice.

Two stages, each keyed by the hash of all that can reach its bytes: *compile* leaves a staging tree in
the store, *package* lets real makepkg make packages of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import msgspec
from tqdm import tqdm

from pipeline import build as builds
from pipeline import ccache, evidence, files, log, recipe, records, version
from pipeline.build import Build, BuildRecord, BuiltPackage
from pipeline.ccache import Ccache
from pipeline.engine.job import Circumstances, Engine, Job
from pipeline.errors import IntegrityError, PipelineError
from pipeline.image.assembly import Image
from pipeline.release import RELEASES, Release
from pipeline.scratch import scratch
from pipeline.source import GitSource, Sha256, Source
from pipeline.store import Store

_MAKEPKG = Path(__file__).resolve().parent / "makepkg"
_PHASE = "==== "
"""How PKGBUILD.in begins the lines that say which part of the build has come."""


class CompiledRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which staging tree a compile key led to; ``compiled/KEY.json`` in the store.

    ``ccache`` is what of it ccache gave, where it was used.
    """

    staging_sha256: Sha256
    ccache: ccache.Use | None = None


@dataclass(frozen=True)
class Compiled:
    """A staging tree's tar in the store, and what of it ccache gave."""

    tree: Path
    ccache: ccache.Use | None = None


@dataclass(frozen=True)
class Plan:
    """Everything that fixes a build's bytes.

    ``image`` compiles, ``packaging`` makes the packages; mostly they are the same.
    """

    release: Release
    recipe: recipe.Recipe
    image: Image
    packaging: Image
    packager: str

    @property
    def compile_key(self) -> str:
        """Hash of all that can reach the staging tree."""
        return _digest(
            {
                "pkgbuild": self.recipe.compile_part,
                "sources": [
                    *([source.name, source.sha256] for source in self.release.sources),
                    *(source.identity for source in self.release.git),
                ],
                "image": self.image.id,
                "source_date_epoch": self.release.source_date_epoch,
                "driver": (_MAKEPKG / "compile.sh").read_text(),
            }
        )

    @property
    def build_id(self) -> str:
        """Hash of all that can reach the packages, as the name of their folder: 16 hexadecimal digits."""
        return _digest(
            {
                "compile": self.compile_key,
                "files": {n: hashlib.sha256(d).hexdigest() for n, d in self.recipe.files.items()},
                "packaging": self.packaging.id,
                # No byte of a package depends on these, but its provenance names them.
                "locks": [self.image.lock_sha256, self.packaging.lock_sha256],
                "packager": self.packager,
                "driver": (_MAKEPKG / "package.sh").read_text(),
                "makepkg.conf": (_MAKEPKG / "makepkg.conf").read_text(),
            }
        )[:16]

    @property
    def environment(self) -> dict[str, str]:
        """What both stages' commands find in their environment."""
        return {"SOURCE_DATE_EPOCH": str(self.release.source_date_epoch)}


def _digest(inputs: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(inputs, order="sorted")).hexdigest()


@dataclass(frozen=True)
class Builder:
    """Where builds run and where their results go.

    ``sources`` fetches the release's sources and returns where they lie; it is called only when
    something must be compiled. ``anew`` compiles whatever the store has, and leaves no note of it there.
    ``circumstances`` are those that the jobs run in. ``ccache`` is what compiles may take files from; without
    it, nothing counts that was ever made with it.
    """

    store: Store
    artifacts: Path
    engine: Callable[[], Engine]
    sources: Callable[[], dict[Source | GitSource, Path]]
    jobs: int
    anew: bool = False
    circumstances: Circumstances = field(default_factory=Circumstances)
    ccache: Ccache | None = None

    def build(self, plan: Plan) -> Build:
        """Return the packages of a plan, building what is not in place yet."""
        folder = self.artifacts / plan.release.name / plan.build_id
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder.parent / f".{plan.build_id}.lock"):
            build = self._finished(folder)
            if build is None:
                build = self._make(plan, folder)
            files.replace_link(folder.parent / "latest", plan.build_id)
        return build

    def _finished(self, folder: Path) -> Build | None:
        if not (folder / "build.json").is_file():
            return None
        try:
            build = builds.read(folder)
            build.verify()
        except IntegrityError as e:
            log.warn(f"{e.message} It is built again.")
            shutil.rmtree(folder)
            return None
        if build.record.ccache is not None and self.ccache is None:
            log.info(f"{folder} was built with ccache. It is built again without.")
            return None
        return build

    def _make(self, plan: Plan, folder: Path) -> Build:
        started = evidence.now()
        logs = folder.parent
        engine = self.engine()
        compiled = self._compiled(plan, engine, logs / f"{plan.build_id}.compile.log")
        with (
            scratch(self.store.root / "scratch", "build") as temporary,
            log.step(f"Packaging {plan.release.name}"),
        ):
            output = temporary / "output"
            output.mkdir()
            log_path = logs / f"{plan.build_id}.package.log"
            self._package(plan, engine, compiled.tree, output, log_path)
            record = BuildRecord(
                release=plan.release.name,
                build_id=plan.build_id,
                compile_key=plan.compile_key,
                image=plan.image.name,
                image_id=plan.image.id,
                engine=engine.name,
                started=started,
                finished=evidence.now(),
                without=plan.release.left_out,
                ccache=compiled.ccache,
                packages=tuple(_describe(p) for p in sorted(output.glob("*.pkg.tar.*"))),
            )
            return self._place(plan, record, output, folder)

    def _place(self, plan: Plan, record: BuildRecord, output: Path, folder: Path) -> Build:
        """Give the finished build its name, all at once."""
        with scratch(folder.parent, ".new") as temporary:
            new = temporary / "build"
            (new / "aur").mkdir(parents=True)
            for package in record.packages:
                shutil.copyfile(output / package.file, new / package.file)
            recipe.write(plan.recipe, new / "aur")
            shutil.copyfile(output / ".SRCINFO", new / "aur" / ".SRCINFO")
            for stage in ("compile", "package"):
                path = folder.parent / f"{plan.build_id}.{stage}.log"
                if path.is_file():
                    path.replace(new / f"{stage}.log")
            if not (new / "compile.log").is_file():
                shutil.copyfile(self._compiled_log(plan), new / "compile.log")
            for name, data in _statements(plan, record).items():
                (new / name).write_bytes(data)
            if plan.release.lock is not None:
                (new / builds.LOCK).write_bytes(records.encode(plan.release.lock))
            (new / "build.json").write_bytes(records.encode(record))
            files.sync_tree(new)
            if folder.exists():
                shutil.rmtree(folder)  # a folder without its build.json is nobody's
            new.rename(folder)
        return Build(folder, record)

    def _compiled_log(self, plan: Plan) -> Path:
        return self.store.root / "compiled" / f"{plan.compile_key}.log"

    def _compiled(self, plan: Plan, engine: Engine, log_path: Path) -> Compiled:
        """Return the staging tree, compiling where the store does not have it."""
        if self.anew:
            return self._compile_into_store(plan, engine, log_path)
        record_path = self.store.root / "compiled" / f"{plan.compile_key}.json"
        with contextlib.suppress(OSError, records.RecordError):
            record = records.decode(record_path.read_bytes(), CompiledRecord)
            try:
                found = self.store.find(record.staging_sha256, "the compiled tree")
            except IntegrityError as e:
                log.warn(f"{e.message} It is compiled again.")
                found = None
            allowed = record.ccache is None or self.ccache is not None
            if found is not None and allowed and self._compiled_log(plan).is_file():
                log.info("compiled already; only packaging")
                return Compiled(found, record.ccache)
        entry = self._compile_into_store(plan, engine, log_path)
        files.write_bytes(self._compiled_log(plan), log_path.read_bytes())
        record = CompiledRecord(staging_sha256=entry.tree.name, ccache=entry.ccache)
        files.write_bytes(record_path, records.encode(record))
        return entry

    def _compile_into_store(self, plan: Plan, engine: Engine, log_path: Path) -> Compiled:
        sources = self.sources()
        with (
            scratch(self.store.root / "scratch", "compile") as temporary,
            log.step(f"Compiling {plan.release.name} in {plan.image.name} with {engine.name}"),
        ):
            output = self._compile(plan, engine, sources, temporary, log_path)
            use = ccache.read(output / ccache.LOG) if self.ccache else None
            if use is not None:
                log.info(str(use))
            return Compiled(self.store.add_file(output / "staging.tar"), use)

    def _compile(
        self,
        plan: Plan,
        engine: Engine,
        sources: dict[Source | GitSource, Path],
        temporary: Path,
        log_path: Path,
    ) -> Path:
        pkgbuild = temporary / "PKGBUILD"
        pkgbuild.write_text(plan.recipe.compile_part, encoding="utf-8")
        inputs = {"PKGBUILD": pkgbuild, "compile.sh": _MAKEPKG / "compile.sh"}
        inputs |= {f"sources/{source.name}": sources[source] for source in plan.release.sources}
        inputs |= {f"sources/{source.file_name}": sources[source] for source in plan.release.git}
        environment = {**plan.environment, "MAKEFLAGS": f"-j{self.jobs}"}
        job = self._job("compile.sh", inputs, environment)
        if self.ccache is not None:
            job = self.ccache.lent(job, plan.image)
        output = temporary / "output"
        output.mkdir()
        with _logged(log_path) as on_line:
            engine.run(job, plan.image, output, on_line)
        return output

    def _job(self, script: str, inputs: dict[str, Path], environment: dict[str, str]) -> Job:
        return Job(("/bin/bash", script), inputs, environment=environment, circumstances=self.circumstances)

    def _package(self, plan: Plan, engine: Engine, staging: Path, output: Path, log_path: Path) -> None:
        with scratch(self.store.root / "scratch", "recipe") as folder:
            recipe.write(plan.recipe, folder)
            inputs = {
                "PKGBUILD": folder / "PKGBUILD",
                "makepkg.conf": _MAKEPKG / "makepkg.conf",
                "package.sh": _MAKEPKG / "package.sh",
                "staging.tar": staging,
            }
            inputs |= {f"support/{name}": folder / name for name in plan.recipe.support}
            environment = {**plan.environment, "PACKAGER": plan.packager, "PKGDEST": "/build/output"}
            job = self._job("package.sh", inputs, environment)
            with _logged(log_path) as on_line:
                engine.run(job, plan.packaging, output, on_line)


def _statements(plan: Plan, record: BuildRecord) -> dict[str, bytes]:
    """What others are told of a build: where its packages come from, and what is in them."""
    # Their libraries take half a second to import, which only a build should pay.
    from pipeline import provenance, sbom

    hashes = {package.file: package.sha256 for package in record.packages}
    origin = provenance.Origin(
        packages=hashes,
        release=plan.release,
        release_file_sha256=files.sha256(RELEASES / f"{plan.release.name}.toml"),
        build_id=record.build_id,
        image=plan.image,
        packaging=plan.packaging,
        engine=record.engine,
        pipeline=version.commit(),
        started=record.started,
        finished=record.finished,
    )
    images = (plan.image, plan.packaging)
    return {
        provenance.FILE: provenance.render(origin),
        sbom.FILE: sbom.render(plan.release, record.build_id, images, hashes),
    }


def _describe(path: Path) -> BuiltPackage:
    return BuiltPackage(file=path.name, size=path.stat().st_size, sha256=files.sha256(path))


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[Callable[[str], None]]:
    """Write every line to a log file, and show those that say which part has come."""
    log.info(f"log: {path}")
    # On a terminal, one line shows that the job lives: its clock and how much it has said.
    bar = tqdm(bar_format="{elapsed}, {n_fmt} lines of log", leave=False, disable=not log.is_terminal())
    start = time.monotonic()
    with path.open("w", encoding="utf-8") as file, bar:

        def on_line(line: str) -> None:
            file.write(line + "\n")
            file.flush()
            bar.update()
            if line.startswith(_PHASE):
                # The seconds in it are by the build's own clock, which a second build may find months ahead.
                part = line.removeprefix(_PHASE).partition(" (at ")[0]
                log.info(f"{part} (at {log.duration(time.monotonic() - start)})")

        try:
            yield on_line
        except PipelineError as e:
            e.hint = f"{e.hint or ''}\nThe whole log: {path}".lstrip()
            raise
