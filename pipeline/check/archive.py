"""Whether a package's archive is whole: its metadata agree, and it holds what the release expects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline.check.findings import Finding, error
from pipeline.package import Member, MtreeEntry, Package


def metadata(package: Package) -> Iterator[Finding]:
    """.PKGINFO, .BUILDINFO and the file's name tell the same story."""
    info, build = package.pkginfo, package.buildinfo
    for key, other in (("pkgname", "pkgname"), ("pkgver", "pkgver"), ("arch", "pkgarch"),
                       ("builddate", "builddate"), ("packager", "packager")):  # fmt: skip
        if info.get(key) != build.get(other):
            yield error("metadata", package.name, ".BUILDINFO",
                         f"{other} is {build.get(other)}, but {info.get(key)} in .PKGINFO")  # fmt: skip
    stem = f"{package.name}-{package.version}-{(*info.get('arch', ()), '?')[0]}.pkg.tar"
    if not package.file.name.startswith(stem):
        yield error("metadata", package.name, package.file.name, f"the file's name should begin with {stem}")


def mtree(package: Package) -> Iterator[Finding]:
    """.MTREE, which `pacman -Qkk` compares with the disk, agrees with the archive."""
    members = {path: m for path, m in package.members.items() if path != ".MTREE"}
    for path in sorted(members.keys() - package.mtree.keys()):
        yield error("mtree", package.name, path, "is not in .MTREE")
    for path in sorted(package.mtree.keys() - members.keys()):
        yield error("mtree", package.name, path, "is in .MTREE, but not in the package")
    for path in sorted(members.keys() & package.mtree.keys()):
        for what in _disagreements(members[path], package.mtree[path]):
            yield error("mtree", package.name, path, f"{what} is not what .MTREE says")


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


def missing_files(package: Package, expected: Sequence[str]) -> Iterator[Finding]:
    """Every file is there that the release expects of this package, and not empty."""
    for path in expected:
        member = package.members.get(path)
        if member is None:
            # man pages are expected by their plain name; makepkg's zipman compresses them.
            member = package.members.get(path + ".gz")
        if member is None:
            yield error("missing", package.name, path, "is expected by the release, but not in the package")
        elif member.is_file and member.size == 0:
            yield error("missing", package.name, path, "is empty")


def missing_packages(packages: Sequence[Package], expected: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Every package is there that the release expects."""
    for name in sorted(expected.keys() - {package.name for package in packages}):
        yield error("missing", name, "", "the release expects this package, but it was not made")


def shared_files(packages: Sequence[Package]) -> Iterator[Finding]:
    """No file is in two packages, which pacman could not install together."""
    owners: dict[str, str] = {}
    for package in packages:
        for member in package.files:
            if member.is_folder:
                continue
            if member.path in owners:
                yield error("conflict", package.name, member.path, f"is also in {owners[member.path]}")
            owners[member.path] = package.name
