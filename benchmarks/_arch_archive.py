"""An archive of Arch with as many packages as a real image has: those of the Debian image, made anew.

Every package of Debian's becomes one of pacman's with the same files, by the real makepkg; repo-add makes
the database. The archive is a folder, which stands in for the real one by the setting mirrors.rewrites.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

DAY = "2013-11-01"
NAME = "benchmark"

_TOGETHER = 12
"""Packages that one PKGBUILD makes; with all of them makepkg takes minutes to read it."""
_LISTED = 8000

_PKGBUILD = """
pkgbase=benchmark
pkgname=(@NAMES@)
pkgver=1.0
pkgrel=1
arch=(x86_64)
options=(!strip !debug emptydirs)
groups=(benchmark)
"""
# A package's files are moved, as copies of them all would take a while.
_PACKAGE = """
package_@NAME@() {
  depends=(@DEPENDS@)
  rmdir "$pkgdir"
  mv "$startdir/../trees/$pkgname" "$pkgdir"
}
"""
_CONFIG = """
CARCH=x86_64
CHOST=x86_64-pc-linux-gnu
BUILDENV=(!distcc !color !ccache !check !sign)
OPTIONS=(!strip !debug)
INTEGRITY_CHECK=(sha256)
COMPRESSZST=(zstd -c -q -T0 -)
COMPRESSXZ=(xz -c -z -T0 -)
PKGEXT=.pkg.tar.@SUFFIX@
SRCEXT=.src.tar.gz
"""
_FILESYSTEM = "filesystem"
_FOLDERS = ("dev", "proc", "sys", "run", "etc", "root", "var", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64")
_LINKS = ("bin", "sbin", "lib", "lib64")


def make(root: Path, work: Path, archive: Path, compression: str) -> None:
    """Make packages of all that dpkg installed in ``root``, and the archive's day that has them.

    ``work`` is a folder for what is needed on the way; ``compression`` is ``xz`` or ``zst``.
    """
    names = [_FILESYSTEM]
    _filesystem(work / "trees" / _FILESYSTEM)
    carried = {*_FOLDERS, *_LINKS}
    for listing in sorted((root / "var/lib/dpkg/info").glob("*.list")):
        name = listing.stem.partition(":")[0]
        if _carry(root, listing, work / "trees" / name, carried):
            names.append(name)
    folder = archive / f"repos/{DAY.replace('-', '/')}/core/os/x86_64"
    folder.mkdir(parents=True)

    def some(number: int) -> None:
        part = work / str(number)
        part.mkdir()
        _makepkg(part, names[number : number + _TOGETHER], compression)
        for path in (part / "out").iterdir():
            path.rename(folder / path.name)

    subprocess.run(["chown", "-R", "1000:1000", work], check=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(some, range(0, len(names), _TOGETHER)))
    _database(folder, work / "listed.db.tar.gz")


def configure(project: Path, archive: Path) -> None:
    """Give a copy of the project an image of all those packages, and the folder in the archive's place."""
    (project / "containers" / f"{NAME}.toml").write_text(
        f'snapshot = "{DAY}"\nrepositories = ["core"]\npackages = ["benchmark"]\n'
    )
    rewrites = {
        "https://archive.archlinux.org": [f"file://{archive}"],
        "https://archive.org/download": [f"file://{archive}/none"],
    }
    # JSON is YAML.
    (project / "invoke.yaml").write_text(
        json.dumps({"pipeline": {"release": "4.17", "mirrors": {"rewrites": rewrites}}})
    )


def _filesystem(tree: Path) -> None:
    for name in _FOLDERS:
        (tree / name).mkdir(parents=True)
    for name in _LINKS:
        (tree / name).symlink_to(f"usr/{name}")
    (tree / "etc/passwd").write_text("root:x:0:0::/root:/bin/bash\n")
    (tree / "etc/group").write_text("root:x:0:root\n")


def _carry(root: Path, listing: Path, tree: Path, carried: set[str]) -> bool:
    """Copy what a package of Debian's holds into a tree with one /usr; says whether there was anything."""
    found = False
    for line in listing.read_text().splitlines():
        path = re.sub(r"^/(bin|sbin|lib|lib64)/", r"/usr/\1/", line).removeprefix("/")
        source, target = root / line.removeprefix("/"), tree / path
        if path in carried or not (source.is_symlink() or source.is_file()):
            continue
        carried.add(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
        found = True
    return found


def _makepkg(folder: Path, names: Sequence[str], compression: str) -> None:
    """Make some of the packages, as the unprivileged user that makepkg wants."""
    parts = [_PKGBUILD.replace("@NAMES@", " ".join(names))]
    for name in names:
        depends = "" if name == _FILESYSTEM else _FILESYSTEM
        parts.append(_PACKAGE.replace("@NAME@", name).replace("@DEPENDS@", depends))
    (folder / "PKGBUILD").write_text("".join(parts))
    (folder / "makepkg.conf").write_text(_CONFIG.replace("@SUFFIX@", compression))
    (folder / "out").mkdir()
    subprocess.run(["chown", "-R", "1000:1000", folder], check=True)
    argv = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "prlimit", "--nofile=4096"]
    argv += ["makepkg", "--config", "makepkg.conf", "--nodeps", "--nocheck"]
    env = {"PATH": os.environ["PATH"], "HOME": os.fspath(folder), "PKGDEST": os.fspath(folder / "out")}
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _database(folder: Path, made: Path) -> None:
    """Let repo-add list the packages, and as many more as a repository of Arch has: pacman reads them all."""
    subprocess.run(["repo-add", "--quiet", made, *sorted(folder.iterdir())], check=True, capture_output=True)
    with tarfile.open(made) as listed, tarfile.open(folder / "core.db", "w:gz") as whole:
        entries = {m.name.rsplit("-", 2)[0]: f.read() for m in listed if (f := listed.extractfile(m))}
        for copy in range(_LISTED // len(entries) + 1):
            for name, data in entries.items():
                other = f"{name}-other{copy}" if copy else name
                if copy:
                    data = data.replace(f"%NAME%\n{name}\n".encode(), f"%NAME%\n{other}\n".encode())
                    data = data.replace(b"%GROUPS%\nbenchmark\n\n", b"")
                member = tarfile.TarInfo(f"{other}-1.0-1/desc")
                member.size = len(data)
                whole.addfile(member, io.BytesIO(data))
