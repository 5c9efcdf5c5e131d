"""A package without a fault, and room to plant one in it; no build is needed for that."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import stat
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.package import Package, read

EPOCH = 1700000000


@dataclass(frozen=True)
class Entry:
    """A member of the archive: a file, a folder (``kind`` DIRTYPE) or a link to ``target``."""

    data: bytes = b""
    mode: int = 0o644
    kind: bytes = tarfile.REGTYPE
    target: str = ""
    uid: int = 0


def folder(mode: int = 0o755) -> Entry:
    return Entry(mode=mode, kind=tarfile.DIRTYPE)


def link(target: str) -> Entry:
    return Entry(mode=0o777, kind=tarfile.SYMTYPE, target=target)


def script(text: str) -> Entry:
    return Entry(text.encode(), 0o755)


def page(text: str) -> Entry:
    return Entry(gzip.compress(text.encode(), mtime=0))


@dataclass
class Draft:
    """What a package is to hold; ``lies`` replaces what .MTREE says of a path, or leaves it out (None)."""

    files: dict[str, Entry] = field(default_factory=dict)
    info: dict[str, list[str]] = field(default_factory=dict)
    build: dict[str, str] = field(default_factory=dict)
    install: str = ""
    lies: dict[str, Entry | None] = field(default_factory=dict)

    def write(self, folder: Path, file_name: str = "") -> Package:
        """Write the package file and read it as check does."""
        folder.mkdir(parents=True, exist_ok=True)
        name, version, arch = (self.info[key][0] for key in ("pkgname", "pkgver", "arch"))
        path = folder / (file_name or f"{name}-{version}-{arch}.pkg.tar.xz")
        path.write_bytes(lzma.compress(self._tar(), preset=0))
        return read(path)

    def _entries(self) -> dict[str, Entry]:
        parents = {str(p) for name in self.files for p in Path(name).parents} - {"."} - self.files.keys()
        return dict(sorted({**dict.fromkeys(parents, folder()), **self.files}.items()))

    def _tar(self) -> bytes:
        entries = self._entries()
        info = "".join(f"{key} = {value}\n" for key, values in self.info.items() for value in values)
        build = {"format": "2", "pkgarch": self.info["arch"][0], "builddir": "/build", **self.build}
        for key in ("pkgname", "pkgver", "builddate", "packager"):
            build.setdefault(key, self.info[key][0])
        meta = {".PKGINFO": info, ".BUILDINFO": "".join(f"{k} = {v}\n" for k, v in build.items())}
        if self.install:
            meta[".INSTALL"] = self.install
        first = {name: Entry(text.encode()) for name, text in meta.items()}
        first[".MTREE"] = Entry(gzip.compress(self._mtree({**first, **entries}).encode(), mtime=0))
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, entry in {**first, **entries}.items():
                tar.addfile(_info(name, entry), io.BytesIO(entry.data))
        return file.getvalue()

    def _mtree(self, entries: dict[str, Entry]) -> str:
        # An archive has the content of a file once, .MTREE says it of each of its names.
        whole = {n: entries[e.target] if e.kind == tarfile.LNKTYPE else e for n, e in entries.items()}
        said = {**whole, **self.lies}
        return "#mtree\n" + "".join(_line(name, entry) for name, entry in said.items() if entry is not None)


def _info(name: str, entry: Entry) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime, info.type = len(entry.data), entry.mode, EPOCH, entry.kind
    info.uid = info.gid = entry.uid
    info.linkname = entry.target
    return info


def _line(name: str, entry: Entry) -> str:
    word = "".join(chr(b) if 32 < b < 127 and b != 92 else f"\\{b:03o}" for b in name.encode())
    kind = {tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "link"}.get(entry.kind, "file")
    said = f"./{word} time={EPOCH}.0 mode={stat.S_IMODE(entry.mode):o} type={kind}"
    said += f" uid={entry.uid} gid={entry.uid}"
    if kind == "link":
        return f"{said} link={entry.target}\n"
    if kind == "file":
        said += f" size={len(entry.data)} sha256digest={hashlib.sha256(entry.data).hexdigest()}"
    return f"{said}\n"


PAGE = ".TH SMALL 1 today\n.SH NAME\nsmall \\- says so\n"


def good(**more: Entry) -> Draft:
    """A package for any machine, in which check finds nothing."""
    return Draft(
        files={
            "etc/small.conf": Entry(b"answer=42\n"),
            "usr/bin/small": script("#!/bin/bash\necho small\n" + "# and so on\n" * 40),
            "usr/share/man/man1/small.1.gz": page(PAGE),
            **more,
        },
        info={
            "pkgname": ["small"],
            "pkgbase": ["small"],
            "pkgver": ["1.0-1"],
            "pkgdesc": ["Says what it is"],
            "url": ["https://example.org/"],
            "builddate": [str(EPOCH)],
            "packager": ["Nobody"],
            "size": ["1"],
            "arch": ["any"],
            "license": ["GPL-2.0-only"],
            "depend": ["bash"],
            "backup": ["etc/small.conf"],
        },
    )
