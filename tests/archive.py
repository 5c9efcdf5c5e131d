"""A small Arch archive: packages made by the real makepkg, databases by repo-add, two days, and a server.

The fat package carries a small root file system, taken from the Debian image of the releases.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from debian.deb822 import Packages

from tests import servers
from tests.keys import Key
from tests.servers import Server

DAYS = ("2013-11-01", "2013-11-02", "2013-11-03")
REPOSITORIES = {
    "core": ("fat", "filesystem", "gcc"),
    "extra": ("ed", "hello", "hello-libs++", "vi"),
    "multilib": ("gcc-multilib",),
}
NAME = "archtest"
DEFINITION = """# A comment, which stays.
snapshot = "2013-11-01"
repositories = ["core", "extra", "multilib"]
packages = ["fat", "devel", "gcc-multilib"]
keys = "keys/mine.asc"
alternative = "debian-bullseye"
kernel_of = "debian-bookworm"
packaging = "debian-bookworm"

[proof]
"compiles" = "printf 'int main(void) { return 0; }' > a.c; gcc -o a a.c; ./a"
"""

_FAT = """
pkgname=fat
pkgver=1.0
pkgrel=1
arch=(x86_64)
provides=(bash coreutils glibc sh)
depends=(filesystem)
install=fat.install
options=(!strip !debug emptydirs)
package() {
  rmdir "$pkgdir"
  mv "$startdir/tree" "$pkgdir"
  # GNU's tar understands as much of it as the compile step asks for.
  ln -s tar "$pkgdir/usr/bin/bsdtar"
  ln -s bash "$pkgdir/usr/bin/sh"
}
"""

# What scriptlets of real packages leave behind: times, random numbers, logs, caches.
_INSTALL = """
post_install() {
  set -e
  echo nothing > /dev/null
  test -r /proc/self/status
  mkdir -p /var/log /var/cache/fat /var/lib/dbus /usr/lib/python2.7
  date > /var/log/fat.log
  date > /var/cache/fat/cache
  head -c 16 /dev/urandom > /var/lib/dbus/machine-id
  head -c 16 /dev/urandom > /etc/machine-id
  date > /usr/lib/python2.7/os.pyc
  printf 'fat:!:%s:0:99999:7:::\\n' "$(($(date +%s) / 86400))" > /etc/shadow
  umask > /usr/share/fat-umask
  locale > /usr/share/fat-locale
}
"""

_SMALL = """
pkgbase=small
pkgname=(@NAMES@)
pkgver=@VERSION@
pkgrel=1
arch=(x86_64)
options=(!strip !debug emptydirs)
_file() {
  mkdir -p "$pkgdir/usr/share/$pkgname"
  echo "$pkgname $pkgver" > "$pkgdir/usr/share/$pkgname/README"
}
package_filesystem() {
  mkdir -p "$pkgdir"/{dev,proc,sys,run,etc,root,var,usr/bin,usr/lib}
  install -d -m1777 "$pkgdir/tmp"
  for name in bin sbin; do ln -s usr/$name "$pkgdir/$name"; done
  for name in lib lib64; do ln -s usr/$name "$pkgdir/$name"; done
  mkdir -p "$pkgdir/usr/"{lib64,sbin}
  echo 'root:x:0:0::/root:/bin/bash' > "$pkgdir/etc/passwd"
  echo 'root:x:0:root' > "$pkgdir/etc/group"
}
package_gcc() { groups=(devel); _file; }
package_gcc-multilib() { provides=(gcc); conflicts=(gcc); _file; }
package_hello() { groups=(devel); depends=('hello-libs++' editor); _file; }
package_hello-libs++() { _file; }
package_ed() { provides=(editor); _file; }
package_vi() { provides=(editor); _file; }
"""

_CONFIG = """
CARCH=x86_64
CHOST=x86_64-pc-linux-gnu
BUILDENV=(!distcc !color !ccache !check !sign)
OPTIONS=(!strip !debug)
INTEGRITY_CHECK=(sha256)
COMPRESSZST=(zstd -c -q -1 -T0 -)
COMPRESSXZ=(xz -c -z -T0 -)
PKGEXT=.pkg.tar.@SUFFIX@
SRCEXT=.src.tar.gz
"""

_DEBIAN = ("bash", "coreutils", "diffutils", "findutils", "gcc", "grep", "gzip",
           "libc-bin", "libc6-dev", "make", "sed", "tar", "util-linux", "xz-utils")  # fmt: skip
_LEFT_OUT = re.compile(r"usr/share/(doc|man|locale|info|lintian|bug)/|san\.|/lto|gold|dwp|gprofng|lto-dump")


def _closure(root: Path) -> list[str]:
    """The Debian packages that those named need, with their architecture where dpkg writes it."""
    with (root / "var/lib/dpkg/status").open("rb") as file:
        known = {entry["Package"]: entry for entry in Packages.iter_paragraphs(file, use_apt_pkg=False)}
    found: set[str] = set()
    todo = list(_DEBIAN)
    while todo:
        name = todo.pop()
        if name not in found and name in known:
            found.add(name)
            for kind in ("depends", "pre-depends"):
                todo += [str(choices[0]["name"]) for choices in known[name].relations[kind] or ()]
    return sorted(found)


def _carry(root: Path, tree: Path) -> None:
    """Copy what the packages hold into a tree with one /usr."""
    info = root / "var/lib/dpkg/info"
    for name in _closure(root):
        listing = next(path for path in (info / f"{name}.list", info / f"{name}:amd64.list") if path.exists())
        for line in listing.read_text().splitlines():
            path = line.removeprefix("/")
            source, target = root / path, tree / re.sub(r"^(bin|sbin|lib|lib64)/", r"usr/\1/", path)
            if path in ("bin", "sbin", "lib", "lib64") or _LEFT_OUT.search(path) or os.path.lexists(target):
                continue
            if source.is_symlink() or source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)


def _makepkg(folder: Path, pkgbuild: str, pool: Path, compression: str = "zst") -> None:
    """Make packages in a folder, as the unprivileged user that makepkg wants."""
    (folder / "PKGBUILD").write_text(pkgbuild)
    (folder / "makepkg.conf").write_text(_CONFIG.replace("@SUFFIX@", compression))
    (folder / "out").mkdir()
    user = []
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "1000:1000", folder], check=True)
        user = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"]
    command = ["prlimit", "--nofile=4096", "makepkg", "--config", "makepkg.conf", "--nodeps", "--nocheck"]
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "PKGDEST": str(folder / "out")}
    done = subprocess.run([*user, *command], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for path in (folder / "out").iterdir():
        shutil.copy(path, pool / path.name)


def _fat(work: Path, root: Path, pool: Path, compression: str) -> None:
    (work / "fat").mkdir()
    _carry(root, work / "fat" / "tree")
    (work / "fat" / "fat.install").write_text(_INSTALL)
    _makepkg(work / "fat", _FAT, pool, compression)


def _small(work: Path, version: str, pool: Path, *names: str) -> None:
    folder = work / f"{version} {names[0]}"
    folder.mkdir()
    _makepkg(folder, _SMALL.replace("@VERSION@", version).replace("@NAMES@", " ".join(names)), pool)


def package_of(file: str) -> str:
    """The package's name in a file's: NAME-VERSION-RELEASE-ARCHITECTURE.pkg.tar.zst."""
    return file.rsplit("-", 3)[0]


@dataclass(frozen=True)
class Archive:
    """The archive on disk: ``pool``/FILE and its signature, ``repos``/DAY/REPOSITORY.db, ``mine.asc``."""

    folder: Path

    def pool(self, day: str) -> Path:
        """Where a day's packages lie, and nothing else but their signatures."""
        return self.folder / "pool" / day

    def file(self, name: str, day: str = DAYS[0]) -> Path:
        """A package's file on a day."""
        paths = (path for path in self.pool(day).iterdir() if path.suffix != ".sig")
        return next(path for path in paths if package_of(path.name) == name)

    def database(self, repository: str, day: str = DAYS[0]) -> Path:
        return self.folder / "repos" / day / f"{repository}.db"

    def make(self, root: Path, key: Key, other: Key, compression: str = "zst") -> None:
        """Make all of it; ``root`` is the Debian image's, ``compression`` that of the fat package."""
        with tempfile.TemporaryDirectory(prefix="archive-") as name:
            work = Path(name)
            work.chmod(0o755)
            first, second, third = (self.pool(day) for day in DAYS)
            first.mkdir(parents=True)
            (work / "new").mkdir()
            with ThreadPoolExecutor() as pool:
                jobs = [
                    pool.submit(_fat, work, root, first, compression),
                    pool.submit(_small, work, "1.0", first, "filesystem", "gcc", "gcc-multilib"),
                    pool.submit(_small, work, "1.0", first, "hello", "hello-libs++", "ed", "vi"),
                    pool.submit(_small, work, "1.1", work / "new", "hello"),
                ]
                for job in jobs:
                    job.result()
            for path in list(first.iterdir()):
                # One package is signed by nobody that the definition knows.
                (other if package_of(path.name) == "vi" else key).sign(path)
            shutil.copytree(first, second, copy_function=os.link)
            # On the second day, some are new; on the third, one of them is not what was signed.
            for old in second.glob("hello-1.0*"):
                old.unlink()
            (new,) = (work / "new").iterdir()
            shutil.copy(new, second)
            key.sign(second / new.name)
            shutil.copytree(second, third, copy_function=os.link)
            (third / f"{new.name}.sig").unlink()
            shutil.copy(key.sign(work / "fat" / "PKGBUILD"), third / f"{new.name}.sig")
        for day in DAYS:
            self._databases(day)
        shutil.copy(key.file, self.folder / "mine.asc")

    def _databases(self, day: str) -> None:
        for repository, names in REPOSITORIES.items():
            database = self.database(repository, day)
            database.parent.mkdir(parents=True, exist_ok=True)
            files = [self.file(name, day) for name in names]
            # Of one repository, the database has the signatures; of the others, the pool has them.
            with tempfile.TemporaryDirectory(prefix="repo-") as name:
                for path in files:
                    os.link(path, Path(name) / path.name)
                    if repository == "core":
                        shutil.copy(f"{path}.sig", name)
                made = Path(name) / f"{repository}.db.tar.gz"
                command: list[str | Path] = [
                    "repo-add",
                    "--quiet",
                    made,
                    *(Path(name) / path.name for path in files),
                ]
                subprocess.run(command, check=True, capture_output=True)
                shutil.copy(made, database)

    def serve(self, server: Server) -> None:
        """Give all of it, with redirects as the archive does: the first day's packages have moved away."""
        for day in DAYS:
            for repository, names in REPOSITORIES.items():
                folder = f"/ala/repos/{day.replace('-', '/')}/{repository}/os/x86_64"
                server.add(
                    f"{folder}/{repository}.db", servers.good(self.database(repository, day).read_bytes())
                )
                for name in names:
                    self._give(server, folder, self.file(name, day), moved=day == DAYS[0])

    def _give(self, server: Server, folder: str, path: Path, *, moved: bool) -> None:
        for file in (path, path.with_name(f"{path.name}.sig")):
            places = places_of(path.name, file.name)
            behaviour = servers.good(file.read_bytes())
            server.add(f"{folder}/{file.name}", servers.redirect(places[0]) if moved else behaviour)
            if moved:
                server.add(places[0], servers.redirect(server.root + places[1]))
                server.add(places[1], behaviour)
            elif places[0] not in server.routes:
                server.add(places[0], behaviour)


def places_of(package: str, file: str) -> tuple[str, str]:
    """Where the archive has a package beside the day's folder: by name, and where it has moved to."""
    name = package_of(package)
    item = re.sub("[@+.]", "_", name)
    return f"/ala/packages/{name[0]}/{name}/{file}", f"/items/archlinux_pkg_{item}/{file}"


def settings(server: Server) -> str:
    """An invoke.yaml by which the server stands in for the archive."""
    rewrites = {
        "https://archive.archlinux.org": [f"{server.root}/ala"],
        "https://archive.org/download": [f"{server.root}/items"],
    }
    # JSON is YAML.
    return json.dumps({"pipeline": {"release": "4.17", "mirrors": {"rewrites": rewrites}}})


# The real archive is never asked, even where it could be.
ENVIRONMENT = {"https_proxy": "http://127.0.0.1:1", "no_proxy": "127.0.0.1", "CI": ""}


@contextlib.contextmanager
def serving(archive: Archive) -> Iterator[Server]:
    """Serve the archive."""
    with servers.serving() as server:
        archive.serve(server)
        yield server
