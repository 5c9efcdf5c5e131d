"""What must be true of the packages of one build, found out without installing them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from pipeline import files
from pipeline.engine.job import Engine, Job
from pipeline.image.assembly import Image
from pipeline.package import MAX_CONTENT, Member, MtreeEntry, Package, read
from pipeline.scratch import scratch
from pipeline.source import Sha256

_VERIFY = Path(__file__).resolve().parent / "makepkg" / "verify.sh"

# Where Arch keeps links to elsewhere, or where a package has no business; see ArchWiki's "Arch package
# guidelines", section "Directories".
_FORBIDDEN = (
    "bin", "sbin", "lib", "lib64", "usr/lib64", "usr/sbin", "usr/local", "usr/libexec",
    "var/run", "run", "tmp", "home", "dev", "proc", "sys", "etc/init.d", "etc/rc.d",
)  # fmt: skip
_SET_ID = 0o6000
_WORLD_WRITABLE = 0o002
_STICKY = 0o1000


class Level(StrEnum):
    """How bad a finding is: an error fails the check, a warning is printed."""

    ERROR = "error"
    WARNING = "warning"


class Finding(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One thing that is not as it should be."""

    code: str
    level: Level
    package: str
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.package}: {self.path}" if self.path else self.package
        return f"{self.level} {self.code}: {where}: {self.message}"


class CheckRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The findings on exactly these packages; ``check-findings.json``."""

    packages: dict[str, Sha256]
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether there is no error among the findings."""
        return not any(finding.level is Level.ERROR for finding in self.findings)


@dataclass(frozen=True)
class Checker:
    """Checks packages; the image lends bash and systemd-analyze, and the engine its walls."""

    image: Image
    engine: Engine
    work: Path
    expected: Mapping[str, Sequence[str]]

    def check(self, paths: Sequence[Path]) -> CheckRecord:
        """Check package files together; raises PackageError where one cannot even be read."""
        packages = [read(path) for path in paths]
        findings: list[Finding] = []
        for package in packages:
            for test in _TESTS:
                findings += test(package)
            findings += _expected(package, self.expected.get(package.name, ()))
        findings += _missing_packages(packages, self.expected)
        findings += _shared_files(packages)
        findings += self._verify(packages)
        hashes = {path.name: files.sha256(path) for path in paths}
        return CheckRecord(packages=hashes, findings=tuple(findings))

    def _verify(self, packages: Sequence[Package]) -> Iterator[Finding]:
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
            yield _error(code, owner, path, message.strip())


def _error(code: str, package: str, path: str, message: str) -> Finding:
    return Finding(code=code, level=Level.ERROR, package=package, path=path, message=message)


def _metadata(package: Package) -> Iterator[Finding]:
    """.PKGINFO, .BUILDINFO and the file's name tell the same story."""
    info, build = package.pkginfo, package.buildinfo
    for key, other in (("pkgname", "pkgname"), ("pkgver", "pkgver"), ("arch", "pkgarch"),
                       ("builddate", "builddate"), ("packager", "packager")):  # fmt: skip
        if info.get(key) != build.get(other):
            yield _error("metadata", package.name, ".BUILDINFO",
                         f"{other} is {build.get(other)}, but {info.get(key)} in .PKGINFO")  # fmt: skip
    stem = f"{package.name}-{package.version}-{(*info.get('arch', ()), '?')[0]}.pkg.tar"
    if not package.file.name.startswith(stem):
        yield _error("metadata", package.name, package.file.name, f"the file's name should begin with {stem}")
    for path in info.get("backup", ()):
        if path not in package.members:
            yield _error("backup", package.name, path, "is listed in backup, but not in the package")


def _mtree(package: Package) -> Iterator[Finding]:
    """.MTREE, which `pacman -Qkk` compares with the disk, agrees with the archive."""
    members = {path: m for path, m in package.members.items() if path != ".MTREE"}
    for path in sorted(members.keys() - package.mtree.keys()):
        yield _error("mtree", package.name, path, "is not in .MTREE")
    for path in sorted(package.mtree.keys() - members.keys()):
        yield _error("mtree", package.name, path, "is in .MTREE, but not in the package")
    for path in sorted(members.keys() & package.mtree.keys()):
        for what in _disagreements(members[path], package.mtree[path]):
            yield _error("mtree", package.name, path, f"{what} is not what .MTREE says")


def _disagreements(member: Member, entry: MtreeEntry) -> Iterator[str]:
    kind = "file" if member.is_file else "dir" if member.is_folder else "link" if member.is_link else "other"
    if kind != entry.kind:
        yield f"the type, {kind},"
        return
    if (member.uid, member.gid) != (entry.uid, entry.gid):
        yield f"the owner, {member.uid}:{member.gid},"
    # A symbolic link's own mode means nothing on Linux.
    if not member.is_link and member.permissions != entry.mode:
        yield f"the mode, {member.permissions:o},"
    if member.is_file and (member.size, member.sha256) != (entry.size, entry.sha256):
        yield "the content"
    if member.is_link and member.target != entry.target:
        yield f"the link's target, {member.target},"


def _places(package: Package) -> Iterator[Finding]:
    for member in package.files:
        for prefix in _FORBIDDEN:
            if member.path == prefix or member.path.startswith(prefix + "/"):
                yield _error("place", package.name, member.path, f"nothing may be in /{prefix}")


def _permissions(package: Package) -> Iterator[Finding]:
    for member in package.files:
        if (member.uid, member.gid) != (0, 0):
            yield _error(
                "owner", package.name, member.path, f"belongs to {member.uid}:{member.gid}, not root"
            )
        if member.permissions & _SET_ID:
            yield _error("set-id", package.name, member.path, f"has mode {member.permissions:o}")
        if member.permissions & _WORLD_WRITABLE and not (
            member.is_link or (member.is_folder and member.permissions & _STICKY)
        ):
            yield _error("world-writable", package.name, member.path, f"has mode {member.permissions:o}")


def _build_path(package: Package) -> Iterator[Finding]:
    """The build folder's name in a file says that the file was not made to be installed elsewhere."""
    needle = package.buildinfo["builddir"][0].rstrip("/").encode() + b"/src/"
    for member in package.files:
        if member.content is not None and needle in _plain(member.content):
            yield _error("build-path", package.name, member.path, f"contains {needle.decode()}")
        if needle.decode() in member.target:
            yield _error("build-path", package.name, member.path, f"points to {member.target}")


def _plain(content: bytes) -> bytes:
    """Look into gzip, as man pages and the hypervisor are, but not deeper than a package may be large."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return zlib.decompressobj(wbits=31).decompress(content, MAX_CONTENT)
    except zlib.error:
        return content


def _links(package: Package) -> Iterator[Finding]:
    """A link to nowhere inside the package is a file that was moved or left out."""
    for member in package.files:
        if not member.is_link:
            continue
        folder = member.path.rpartition("/")[0]
        path = member.target if member.target.startswith("/") else f"{folder}/{member.target}"
        if _normal(path) not in package.members:
            yield Finding(code="dangling-link", level=Level.WARNING, package=package.name, path=member.path,
                          message=f"points to {member.target}, which is not in the package")  # fmt: skip


def _normal(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


_TESTS: tuple[Callable[[Package], Iterator[Finding]], ...] = (
    _metadata,
    _mtree,
    _places,
    _permissions,
    _build_path,
    _links,
)


def _expected(package: Package, expected: Sequence[str]) -> Iterator[Finding]:
    for path in expected:
        member = package.members.get(path)
        if member is None:
            # man pages are expected by their plain name; makepkg's zipman compresses them.
            member = package.members.get(path + ".gz")
        if member is None:
            yield _error("missing", package.name, path, "is expected by the release, but not in the package")
        elif member.is_file and member.size == 0:
            yield _error("missing", package.name, path, "is empty")


def _missing_packages(
    packages: Sequence[Package], expected: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    for name in sorted(expected.keys() - {package.name for package in packages}):
        yield _error("missing", name, "", "the release expects this package, but it was not made")


def _shared_files(packages: Sequence[Package]) -> Iterator[Finding]:
    owners: dict[str, str] = {}
    for package in packages:
        for member in package.files:
            if member.is_folder:
                continue
            if member.path in owners:
                yield _error("conflict", package.name, member.path, f"is also in {owners[member.path]}")
            owners[member.path] = package.name


def summary(findings: Sequence[Finding]) -> str:
    """Count findings by level, for one line of a table."""
    count = {level: sum(f.level is level for f in findings) for level in Level}
    return (
        ", ".join(f"{n} {level}{'s' if n != 1 else ''}" for level, n in count.items() if n) or "nothing found"
    )
