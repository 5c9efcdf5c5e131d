"""A small real C package, split in two, that takes the same road as Xen does."""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

PKGBUILD = r"""pkgbase=small
pkgname=(small small-docs)
pkgver=@PKGVER@
pkgrel=@PKGREL@
pkgdesc='Says what it is'
arch=(x86_64)
url='https://example.org/'
license=(GPL-2.0-only)
options=(!buildflags !debug !lto)
source=(
@SOURCES@
)
sha256sums=(
@SHA256SUMS@
)

_top='@SRCDIR@'
_flags=(
@FLAGS@
)

build() {
  cd "$srcdir/$_top"
  printf '==== compiling\n'
  local stage=$srcdir/staging
  mkdir -p "$stage"/small/{usr/bin,etc} "$stage"/small-docs/usr/share/{doc/small,man/man1}
  gcc "${_flags[@]}" "-ffile-prefix-map=$srcdir=." -c small.c
  gcc "${_flags[@]}" -o "$stage/small/usr/bin/small" small.o
  cp small.1 "$stage/small-docs/usr/share/man/man1/"
  cp README "$stage/small-docs/usr/share/doc/small/"
  %BUILD%
}

package_small() {
  depends=(bash glibc)
  backup=(etc/small.conf)
  cp -dR --preserve=mode,timestamps,links "$srcdir/staging/small/." "$pkgdir/"
  install -Dm644 "$srcdir/small.conf" "$pkgdir/etc/small.conf"
  install -Dm644 "$srcdir/small.service" "$pkgdir/usr/lib/systemd/system/small.service"
  install -Dm755 "$srcdir/small-helper" "$pkgdir/usr/lib/small/helper"
  %PACKAGE%
}

package_small-docs() {
  arch=(any)
  cp -dR --preserve=mode,timestamps,links "$srcdir/staging/small-docs/." "$pkgdir/"
  %DOCS%
}
"""

SUPPORT = {
    "small.conf": "# settings of small\nanswer=42\n",
    "small.service": "[Unit]\nDescription=Small\n\n[Service]\nExecStart=/usr/bin/small\n",
    "small-helper": "#!/bin/bash\necho help\n",
}

RELEASE = """
version = "1.0"
xen_version = "1.0"
source_date_epoch = 1700000000
image = "{image}"

[[sources]]
name = "small-1.0.tar.gz"
urls = ["{url}"]
size = {size}
sha256 = "{sha256}"

[tokens]
SRCDIR = "small-1.0"
FLAGS = ["-O2", "-g0", "-fstack-protector-all", "-Wl,-z,relro,-z,now"]

[expected]
small = ["usr/bin/small", "etc/small.conf"]
small-docs = ["usr/share/man/man1/small.1"]
"""


@dataclass(frozen=True)
class Small:
    """The package's source, and what a test plants in its functions."""

    archive: bytes
    url: str
    image: str = "debian-bookworm"
    build: str = ":"
    package: str = ":"
    docs: str = ":"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.archive).hexdigest()

    def write(self, project: Path) -> None:
        """Put the package into a checkout in Xen's place."""
        for path in (project / "releases").glob("*.toml"):
            path.unlink()
        release = RELEASE.format(image=self.image, url=self.url, size=len(self.archive), sha256=self.sha256)
        (project / "releases" / "small.toml").write_text(release)
        pkgbuild = PKGBUILD.replace("%BUILD%", self.build).replace("%PACKAGE%", self.package)
        (project / "PKGBUILD.in").write_text(pkgbuild.replace("%DOCS%", self.docs))
        shutil.rmtree(project / "package")
        (project / "package").mkdir()
        for name, text in SUPPORT.items():
            (project / "package" / name).write_text(text)


def archive(unique: str) -> bytes:
    """Make the source's tarball; ``unique`` is a word that makes it another one."""
    program = f'/* {unique} */\n#include <stdio.h>\nint main(void) {{ puts("small"); return 0; }}\n'
    contents = {
        "small.c": program,
        "small.1": ".TH SMALL 1\n.SH NAME\nsmall \\- says so\n",
        "README": "small is small\n",
    }
    file = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as tar,
    ):
        for name, text in contents.items():
            info = tarfile.TarInfo(f"small-1.0/{name}")
            info.size = len(text)
            info.mtime = 1600000000
            tar.addfile(info, io.BytesIO(text.encode()))
    return file.getvalue()
