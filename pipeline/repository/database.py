"""A pacman repository's databases, ``NAME.db`` and ``NAME.files``: as repo-add's, in always the same bytes.

Format: repo-add(8) and libalpm's sync databases: a tar with a folder NAME-VERSION a package, in it ``desc``
and, in the second one, ``files``. repo-add itself leaves the time of its run in the archive.
"""

from __future__ import annotations

import base64
import gzip
import io
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import FailureError
from pipeline.package import Package

MAX_SIGNATURE = 16384
"""The largest signature, in bytes, that a database may hold (repo-add)."""

_BEFORE_SUMS = (("DESC", "pkgdesc"), ("GROUPS", "group"))
_AFTER_SUMS = (
    ("URL", "url"),
    ("LICENSE", "license"),
    ("ARCH", "arch"),
    ("BUILDDATE", "builddate"),
    ("PACKAGER", "packager"),
    ("REPLACES", "replaces"),
    ("CONFLICTS", "conflict"),
    ("PROVIDES", "provides"),
    ("DEPENDS", "depend"),
    ("OPTDEPENDS", "optdepend"),
    ("MAKEDEPENDS", "makedepend"),
    ("CHECKDEPENDS", "checkdepend"),
)
_LISTS = {"group", "license", "replaces", "conflict", "provides"} | {
    f"{kind}depend" for kind in ("", "opt", "make", "check")
}


@dataclass(frozen=True)
class Entry:
    """A package as a database lists it; ``signature`` is the binary OpenPGP signature, if there is one."""

    package: Package
    file: str
    size: int
    sha256: str
    signature: bytes | None = None

    @property
    def folder(self) -> str:
        """The entry's folder in the archive."""
        return f"{self.package.name}-{self.package.version}"

    def desc(self) -> bytes:
        """Render ``desc``. It has no MD5 sum, as with repo-add since pacman 7."""
        info = self.package.pkginfo
        if self.signature is not None and len(self.signature) > MAX_SIGNATURE:
            raise FailureError(f"The signature of {self.file} is larger than pacman takes.")
        encoded = base64.b64encode(self.signature).decode() if self.signature else ""
        fields: list[tuple[str, tuple[str, ...]]] = [
            ("FILENAME", (self.file,)),
            ("NAME", (self.package.name,)),
            ("BASE", info["pkgbase"][-1:]),
            ("VERSION", (self.package.version,)),
            *((field, _values(self.package, key)) for field, key in _BEFORE_SUMS),
            ("CSIZE", (str(self.size),)),
            ("ISIZE", _values(self.package, "size")),
            ("SHA256SUM", (self.sha256,)),
            ("PGPSIG", (encoded,)),
            *((field, _values(self.package, key)) for field, key in _AFTER_SUMS),
        ]
        return "".join(_field(name, values) for name, values in fields).encode()

    def files(self) -> bytes:
        """Render ``files``: all paths, folders with a slash, in the order of their bytes."""
        paths = sorted(f"{m.path}/" if m.is_folder else m.path for m in self.package.files)
        return "\n".join(["%FILES%", *paths, ""]).encode()


def _values(package: Package, key: str) -> tuple[str, ...]:
    """A key's values as repo-add reads them: the last where only one is meant, runs of spaces made one."""
    values = tuple(" ".join(value.split()) for value in package.pkginfo.get(key, ()))
    return values if key in _LISTS else values[-1:]


def _field(name: str, values: tuple[str, ...]) -> str:
    return "\n".join([f"%{name}%", *values, "", ""]) if values and values[0] else ""


def render(entries: Iterable[Entry], *, with_files: bool) -> bytes:
    """Render a database; ``with_files`` makes it the one that ``pacman -F`` reads."""
    tar_bytes = io.BytesIO()
    with tarfile.open(fileobj=tar_bytes, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for entry in sorted(entries, key=lambda e: e.folder):
            folder = tarfile.TarInfo(entry.folder)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
            for name, data in _members(entry, with_files):
                member = tarfile.TarInfo(f"{entry.folder}/{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return gzip.compress(tar_bytes.getvalue(), mtime=0)


def _members(entry: Entry, with_files: bool) -> Iterator[tuple[str, bytes]]:
    yield "desc", entry.desc()
    if with_files:
        yield "files", entry.files()


def entry(package: Package, path: Path, sha256: str) -> Entry:
    """Make the entry of a package file whose hash is known; its signature is the file beside it."""
    signature = path.with_name(f"{path.name}.sig")
    data = signature.read_bytes() if signature.is_file() else None
    return Entry(package, path.name, path.stat().st_size, sha256, data)
