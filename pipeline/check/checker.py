"""What must be true of the packages of one build, found out without installing them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import files
from pipeline.check import archive, binaries, bytecode, depends, description, layout, pages
from pipeline.check.findings import CheckRecord, Finding, accept, error
from pipeline.engine.job import Engine, Job
from pipeline.image.assembly import Image
from pipeline.package import Package, read
from pipeline.release import Release
from pipeline.scratch import scratch

_VERIFY = Path(__file__).resolve().with_name("verify.sh")

_OF_ONE_PACKAGE: tuple[Callable[[Package], Iterator[Finding]], ...] = (
    archive.metadata,
    archive.mtree,
    layout.places,
    layout.permissions,
    layout.build_path,
    layout.links,
    layout.hard_links,
    layout.backup,
    layout.names,
    layout.empty_folders,
    layout.leftovers,
    layout.desktop_entries,
    description.description,
    description.licence,
    description.hooks,
    description.documentation,
    bytecode.check,
)


def inspect(
    package: Package, together: Sequence[Package], expected: Sequence[str], work: Path
) -> Iterator[Finding]:
    """Look at all of one package that takes no engine.

    ``together`` are the packages of its build, ``expected`` the files that it must hold, ``work`` is a
    folder for what is needed in between.
    """
    for test in _OF_ONE_PACKAGE:
        yield from test(package)
    yield from archive.missing_files(package, expected)
    found, damaged = binaries.read(package)
    yield from damaged
    yield from binaries.check(package, found)
    yield from depends.check(package, found, together)
    yield from pages.check(package, work)


@dataclass(frozen=True)
class Checker:
    """Checks packages; the image lends bash, makepkg and systemd-analyze, and the engine its walls."""

    image: Image
    engine: Engine
    work: Path
    release: Release

    def check(self, paths: Sequence[Path], aur: Path | None = None) -> CheckRecord:
        """Check package files together, and the AUR folder that they were made from where it is given.

        Raises PackageError where a package cannot even be read.
        """
        packages = [read(path) for path in paths]
        findings: list[Finding] = []
        for package in packages:
            expected = self.release.expected.get(package.name, ())
            findings += inspect(package, packages, expected, self.work)
        findings += archive.missing_packages(packages, self.release.expected)
        findings += archive.shared_files(packages)
        findings += self.verify(packages)
        if aur is not None:
            findings += self._srcinfo(packages, aur)
        whole = not self.release.left_out
        hashes = {path.name: files.sha256(path) for path in paths}
        accepted = tuple(accept(findings, self.release.accepted, packages, whole=whole))
        return CheckRecord(packages=hashes, findings=accepted)

    def verify(self, packages: Sequence[Package]) -> Iterator[Finding]:
        """Let the image's bash and systemd-analyze look at scripts and units."""
        with scratch(self.work, "check") as folder:
            inputs = {f"packages/{package.file.name}": package.file for package in packages}
            inputs["verify.sh"] = _VERIFY
            self.engine.run(Job(("/bin/bash", "verify.sh"), inputs), self.image, folder, lambda _: None)
            found = folder / "findings"
            lines = found.read_text(encoding="utf-8", errors="replace").splitlines() if found.exists() else []
        names = ", ".join(package.name for package in packages)
        for line in lines:
            # A hostile file's name may hold a tab or a newline.
            code, path, message = [*line.split("\t", 2), "", ""][:3]
            owner = next((p.name for p in packages if path in p.members), names)
            yield error(code, owner, path, message.strip())

    def _srcinfo(self, packages: Sequence[Package], aur: Path) -> Iterator[Finding]:
        """.SRCINFO, which the AUR's pages and helpers read, says what makepkg reads in the PKGBUILD."""
        said: list[str] = []
        inputs = {path.name: path for path in sorted(aur.iterdir()) if path.is_file()}
        with scratch(self.work, "srcinfo") as folder:
            job = Job(("makepkg", "--printsrcinfo"), {n: p for n, p in inputs.items() if n != ".SRCINFO"})
            self.engine.run(job, self.image, folder, said.append)
        base = packages[0].pkginfo["pkgbase"][0] if packages else ""
        path = aur / ".SRCINFO"
        has = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
        lines = difflib.unified_diff([x for x in has if x], [x for x in said if x], lineterm="", n=0)
        changed = [line for line in list(lines)[2:] if not line.startswith("@@")]
        if changed:
            yield error("srcinfo", base, ".SRCINFO", f"is not what makepkg says: {changed[0].strip()}")
