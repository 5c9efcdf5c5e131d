"""Folders of finished builds, put together in no time: small packages, and all that lies beside them."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import tarfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from pipeline import evidence, files, provenance, records, release, sbom, seal
from pipeline.build import Build, BuildRecord, BuiltPackage
from pipeline.evidence import Evidence, Kind
from pipeline.image.assembly import Image
from pipeline.image.lock import read_lock
from pipeline.provenance import Origin
from pipeline.store import Store

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
IMAGE = "debian-bookworm"


def package(
    name: str,
    version: str = "1.0-1",
    contents: dict[str, bytes] | None = None,
    arch: str = "any",
    info: str = "",
) -> bytes:
    """A package that pacman installs; ``info`` is more for its .PKGINFO."""
    contents = contents or {f"usr/share/{name}/file": version.encode()}
    info += f"pkgname = {name}\npkgbase = {name}\npkgver = {version}\npkgdesc = small\nurl = x\n"
    info += f"builddate = 1600000000\npackager = Nobody <nobody@example.org>\nsize = 1\narch = {arch}\n"
    folders = sorted({str(parent) for path in contents for parent in Path(path).parents} - {"."})
    mtree = "#mtree\n/set type=file uid=0 gid=0 mode=644\n"
    mtree += "".join(f"./{folder} time=1600000000.0 mode=755 type=dir\n" for folder in folders)
    for path, data in contents.items():
        sums = f"md5digest={hashlib.md5(data).hexdigest()} sha256digest={hashlib.sha256(data).hexdigest()}"
        mtree += f"./{path} time=1600000000.0 size={len(data)} {sums}\n"
    members = {
        ".PKGINFO": info.encode(),
        ".BUILDINFO": f"format = 2\npkgname = {name}\npkgver = {version}\nbuilddir = /build\n".encode(),
        ".MTREE": gzip.compress(mtree.encode(), mtime=0),
    }
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in folders:
            entry = tarfile.TarInfo(path)
            entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, 1600000000
            tar.addfile(entry)
        for path, data in (members | contents).items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mtime = len(data), 1600000000
            tar.addfile(entry, io.BytesIO(data))
    return lzma.compress(file.getvalue(), preset=0)


def make(
    folder: Path,
    *,
    version: str = "1.0-1",
    names: Iterable[str] = ("small", "small-docs"),
    proven: Iterable[Kind] = tuple(Kind),
    contents: dict[str, bytes] | None = None,
    arch: str = "any",
) -> Build:
    """Make the folder of a build with these packages, evidence for them, and a seal that nobody signed."""
    (folder / "aur").mkdir(parents=True)
    (folder / "aur" / "PKGBUILD").write_text(f"pkgname=small\npkgver={version.partition('-')[0]}\n")
    (folder / "aur" / ".SRCINFO").write_text("pkgbase = small\n")
    packages = []
    for name in names:
        path = folder / f"{name}-{version}-any.pkg.tar.xz"
        path.write_bytes(package(name, version, contents if name == "small" else None, arch))
        packages.append(BuiltPackage(file=path.name, size=path.stat().st_size, sha256=files.sha256(path)))
    image = Image(IMAGE, read_lock(IMAGE), Store(Path("/nonexistent")))
    record = BuildRecord(
        release="4.17",
        build_id="0123456789abcdef",
        compile_key="0" * 64,
        image=IMAGE,
        image_id=image.id,
        engine="bubblewrap",
        started=NOW,
        finished=NOW,
        packages=tuple(packages),
    )
    write(folder, record, image, proven)
    return Build(folder, record)


def write(folder: Path, record: BuildRecord, image: Image, proven: Iterable[Kind]) -> None:
    """Write what lies beside the packages."""
    (folder / "build.json").write_bytes(records.encode(record))
    hashes = {package.file: package.sha256 for package in record.packages}
    found = msgspec.structs.replace(release.read(record.release), sources=())
    origin = Origin(
        packages=hashes,
        release=found,
        release_file_sha256="0" * 64,
        build_id=record.build_id,
        image=image,
        packaging=image,
        engine=record.engine,
        pipeline="unknown",
        started=NOW,
        finished=NOW,
    )
    (folder / provenance.FILE).write_bytes(provenance.render(origin))
    (folder / sbom.FILE).write_bytes(sbom.render(found, record.build_id, (), hashes))
    for kind in proven:
        one = Evidence(
            kind=kind, packages=hashes, passed=True, summary="well", tools={}, finished=NOW, key="0" * 64
        )
        evidence.write(folder, one)
    seal.seal(folder, hashes)
