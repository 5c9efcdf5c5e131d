"""The checks, each seen to fail on a package with the fault planted."""

from __future__ import annotations

import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.checkouts import Checkout
from tests.small import Small

pytestmark = pytest.mark.integration

PLANTED = r"""
  cd "$pkgdir"
  install -Dm4755 /dev/null usr/bin/setuid
  install -Dm666 /dev/null usr/share/writable
  install -d -m777 usr/share/open
  install -Dm644 /dev/null usr/local/file
  install -Dm644 /dev/null lib64/file
  install -Dm755 /dev/null etc/init.d/file
  printf '/build/src/small-1.0\n' > usr/share/path
  ln -s /build/src/small-1.0 usr/share/path-link
  printf '#!/bin/bash\nif true; then\n' > usr/bin/unfinished
  printf '#!/usr/bin/env bash\n((\n' > usr/bin/by-env
  printf '#!/bin/sh\nfi\n' > $'usr/bin/two\twords'
  printf '[Unit]\nDescription=x\n[Service]\nType=nonsense\nExecStart=/usr/bin/small\n' \
    > usr/lib/systemd/system/nonsense.service
  printf '[Unit]\nDescription=x\n[Service]\nExecStartPre=/usr/bin/grep x\nExecStart=/usr/bin/gone\n' \
    > usr/lib/systemd/system/gone.service
  install -Dm644 /dev/null usr/share/doc/small/README
  backup+=(etc/missing.conf)
  install=small.install
  ln -s nowhere usr/share/dangling
  rm usr/bin/small
  : > etc/small.conf
"""
FOUND = {
    ("set-id", "usr/bin/setuid"),
    ("world-writable", "usr/share/writable"),
    ("world-writable", "usr/share/open"),
    ("place", "usr/local/file"),
    ("place", "lib64/file"),
    ("place", "etc/init.d/file"),
    ("build-path", "usr/share/path"),
    ("build-path", "usr/share/path-link"),
    ("script-syntax", "usr/bin/unfinished"),
    ("script-syntax", "usr/bin/by-env"),
    ("script-syntax", "usr/bin/two"),
    ("script-syntax", ".INSTALL"),
    ("unit", "usr/lib/systemd/system/nonsense.service"),
    ("unit", "usr/lib/systemd/system/gone.service"),
    ("conflict", "usr/share/doc/small/README"),
    ("backup", "etc/missing.conf"),
    ("missing", "usr/bin/small"),
    ("missing", "etc/small.conf"),
    ("dangling-link", "usr/share/dangling"),
    ("empty-folder", "usr/share/open"),
    ("arch", ".PKGINFO"),
    ("unused-depends", "glibc"),
}

BINARIES = r"""
  options=(!strip libtool staticlibs emptydirs)
  license=(MIT)
  depends+=(lzo)
  cd "$pkgdir"
  mkdir -p usr/lib usr/lib/python3/dist-packages usr/share/applications usr/share/empty
  printf 'int main(void) { return 0; }\n' > /tmp/m.c
  printf 'int f(void) { return 0; }\n' > /tmp/f.c
  printf '.globl _start\n_start: ret\n' > /tmp/s.s
  gcc -s -shared -fPIC -Wl,-soname,libelsewhere.so.7 -o /tmp/libelsewhere.so /tmp/f.c
  gcc -s -Wl,-rpath,/opt/lib -o usr/bin/rpath /tmp/m.c
  gcc -s -Wl,-z,execstack -o usr/bin/execstack /tmp/m.c
  gcc -s -Wl,-z,norelro -o usr/bin/norelro /tmp/m.c
  gcc -s -Wl,-z,lazy -o usr/bin/lazy /tmp/m.c
  gcc -s -no-pie -o usr/bin/fixed /tmp/m.c
  gcc -o usr/bin/symbols /tmp/m.c
  gcc -s -Wl,--no-as-needed -o usr/bin/zlib /tmp/m.c -lz
  gcc -s -Wl,--no-as-needed -o usr/bin/elsewhere /tmp/m.c /tmp/libelsewhere.so
  gcc -s -shared -fPIC -Wl,-soname,libown.so.9 -o usr/lib/libown.so.9.1 /tmp/f.c
  cp /tmp/libelsewhere.so usr/lib/python3/dist-packages/x.cpython-311-x86_64-linux-gnu.so
  printf '.text\n.globl f\nf: .quad puts\n' > /tmp/t.s
  gcc -s -shared -Wl,-z,notext -o usr/lib/textrel.so /tmp/t.s
  as --32 -o /tmp/s.o /tmp/s.s
  ld -m elf_i386 -o usr/bin/static32 /tmp/s.o
  ld -m elf_i386 -pie -dynamic-linker /lib/ld-linux.so.2 -o usr/bin/dynamic32 /tmp/s.o
  printf '\177ELFgarbage' > usr/bin/damaged
  printf '#!/usr/bin/perl\n' > usr/bin/perl-script
  printf '#!/usr/bin/env ruby\n' > usr/bin/ruby-script
  chmod 755 usr/bin/*
  printf 'x=1\n' > etc/other.conf
  : > $'usr/share/\xc3\xa4'
  : > usr/lib/x.la
  : > usr/lib/x.a
  printf '[Desktop Entry]\nType=Application\nName=x\n' > usr/share/applications/x.desktop
"""
DOCS = r"""
  cd "$pkgdir/usr/share/man"
  mkdir man8
  printf 'no title\n' > man1/untitled.1
  printf '.TH X 1\n.SH NAME\n.TS\nbroken' > man1/broken.1
  cp man1/small.1 man8/small.1
  mkdir -p ../../lib
  printf 'int f(void) { return 0; }\n' > /tmp/f.c
  gcc -s -shared -fPIC -o ../../lib/for-one.so /tmp/f.c
"""
FOUND_IN_BINARIES = {
    ("rpath", "usr/bin/rpath"),
    ("executable-stack", "usr/bin/execstack"),
    ("relro", "usr/bin/norelro"),
    ("relro", "usr/bin/lazy"),
    ("pie", "usr/bin/fixed"),
    ("not-stripped", "usr/bin/symbols"),
    ("depends", "usr/bin/zlib"),
    ("unknown-need", "usr/bin/elsewhere"),
    ("soname-link", "usr/lib/libown.so.9.1"),
    ("python-abi", "usr/lib/python3/dist-packages/x.cpython-311-x86_64-linux-gnu.so"),
    ("text-relocations", "usr/lib/textrel.so"),
    ("elf-class", "usr/bin/static32"),
    ("elf-class", "usr/bin/dynamic32"),
    ("damaged-elf", "usr/bin/damaged"),
    ("depends", "usr/bin/perl-script"),
    ("unknown-need", "usr/bin/ruby-script"),
    ("unused-depends", "lzo"),
    ("not-in-backup", "etc/other.conf"),
    ("file-name", "usr/share/ä"),
    ("empty-folder", "usr/share/empty"),
    ("libtool", "usr/lib/x.la"),
    ("static-library", "usr/lib/x.a"),
    ("licence", "usr/share/licenses/small/"),
    ("desktop", "usr/share/applications/x.desktop"),
    ("stack-protector", ""),
    ("man", "usr/share/man/man1/untitled.1.gz"),
    ("man", "usr/share/man/man1/broken.1.gz"),
    ("man", "usr/share/man/man8/small.1.gz"),
    ("arch", "usr/lib/for-one.so"),
    ("srcinfo", ".SRCINFO"),
}


def findings(checkout: Checkout) -> list[dict[str, str]]:
    """Read what the last check found."""
    found: list[dict[str, str]] = json.loads((checkout.latest / "check-findings.json").read_text())[
        "findings"
    ]
    return found


def test_every_planted_fault_is_found(checkout: Checkout, source: Small) -> None:
    """A check that cannot fail lets the fault through to every user."""
    Small(source.archive, source.url, package=PLANTED).write(checkout.root)
    (checkout.root / "package" / "small.install").write_text("post_install() {\n")
    checkout.run("build", "small").fine()
    checked = checkout.run("check", "small").failed(1)
    found = {(f["code"], f["path"]) for f in findings(checkout)}
    assert FOUND - found == set()
    for code, path in FOUND:
        assert f" {code}: " in checked.err
        assert path in checked.err
    others = found - FOUND
    assert {code for code, _ in others} <= {"place", "dangling-link", "file-name", "unit"}, others


def test_every_fault_of_programs_and_pages_is_found(checkout: Checkout, source: Small) -> None:
    """Each of these has come to users in some package; here it is named before it does."""
    Small(source.archive, source.url, package=BINARIES, docs=DOCS).write(checkout.root)
    checkout.run("build", "small").fine()
    srcinfo = checkout.latest / "aur" / ".SRCINFO"
    srcinfo.write_text(srcinfo.read_text().replace("pkgver = 1.0", "pkgver = 1.1"))
    checked = checkout.run("check", "small").failed(1)
    found = {(f["code"], f["path"]) for f in findings(checkout)}
    assert FOUND_IN_BINARIES - found == set()
    for code, path in FOUND_IN_BINARIES:
        assert f" {code}: small" in checked.err
        assert path in checked.err
    # What was built without regard to the linker's tables has that said of it too, and nothing else.
    others = found - FOUND_IN_BINARIES
    assert {code for code, _ in others} <= {"relro", "executable-stack", "not-stripped"}, others


def test_what_a_release_accepts_is_told_apart(checkout: Checkout, source: Small) -> None:
    """Or known findings would hide new ones, and reasons would stay when nothing needs them any more."""
    plant = 'cd "$pkgdir"; printf "x=1\\n" > etc/other.conf; install -Dm4755 /dev/null usr/bin/setuid'
    Small(source.archive, source.url, package=plant).write(checkout.root)
    release = checkout.root / "releases" / "small.toml"
    plain = release.read_text()
    entry = '\n[[accepted]]\ncode = "{}"\npath = "{}"\nreason = "It has to be like this."\n'
    checkout.run("build", "small").fine()

    release.write_text(plain + entry.format("set-id", "usr/bin/*"))
    said = checkout.run("check", "small").fine()
    assert "1 warning (1 accepted)" in said.out
    assert "not-in-backup" in said.err
    assert "set-id" not in said.err
    reasons = {f["code"]: f["accepted"] for f in findings(checkout)}
    assert reasons == {"set-id": "It has to be like this.", "not-in-backup": ""}

    release.write_text(plain + entry.format("set-id", "usr/bin/other"))
    assert "set-id: small: usr/bin/setuid" in checkout.run("check", "small").failed(1).err

    both = entry.format("set-id", "*") + entry.format("pie", "usr/bin/gone")
    release.write_text(plain + both)
    said = checkout.run("check", "small").fine()
    assert "idle: small, small-docs: usr/bin/gone: pie is accepted here, but no longer found" in said.err


def rewritten(path: Path, folder: Path, name: str, data: bytes | None) -> Path:
    """Copy a package with another content of one member, or without it."""
    target = folder / path.name
    with (
        tarfile.open(path) as old,
        lzma.open(target, "wb") as file,
        tarfile.open(fileobj=file, mode="w") as new,
    ):
        for info in old.getmembers():
            content = old.extractfile(info) if info.isreg() else None
            kept = content.read() if content else b""
            if info.name == name:
                if data is None:
                    continue
                kept, info.size = data, len(data)
            new.addfile(info, io.BytesIO(kept))
    return target


def test_good_packages_pass_and_damaged_ones_do_not(checkout: Checkout, tmp_path: Path) -> None:
    """Green must mean that real pacman takes the packages, and red must name what is wrong."""
    checkout.run("build", "small").fine()
    assert "check: nothing found\n" in checkout.run("check", "small").fine().out
    assert checkout.run("check", "small").fine().seconds < 3  # on these very packages, before
    main, docs = sorted(checkout.latest.glob("*.pkg.tar.xz"), key=lambda p: "docs" in p.name)
    if os.geteuid() == 0 and shutil.which("pacman"):
        pacman_installs(tmp_path / "root", [main, docs])

    folder = tmp_path / "damaged"
    folder.mkdir()
    changed = rewritten(main, folder, "etc/small.conf", b"answer=0\n")
    err = checkout.run("check", str(changed), str(docs)).failed(1).err
    assert "error mtree: small: etc/small.conf: the content is not what .MTREE says" in err
    forged = rewritten(main, folder, ".PKGINFO", b"garbage\n")
    assert ".PKGINFO, line 1" in checkout.run("check", str(forged), str(docs)).failed(1).err
    cut = folder / main.name
    cut.write_bytes(main.read_bytes()[:-100])
    assert main.name in checkout.run("check", str(cut), str(docs)).failed(1).err
    assert "no file nothing.pkg.tar.xz" in checkout.run("check", "nothing.pkg.tar.xz").failed(2).err


def pacman_installs(root: Path, packages: list[Path]) -> None:
    """Let real pacman install packages into an empty root, and compare what lies there then."""
    (root / "var/lib/pacman").mkdir(parents=True)
    (root / "pacman.conf").write_text("[options]\nSigLevel = Never\nArchitecture = x86_64\n")
    pacman = [
        *("pacman", "--root", str(root), "--dbpath", str(root / "var/lib/pacman")),
        *("--config", str(root / "pacman.conf"), "--logfile", str(root / "log")),
        *("--hookdir", "/nonexistent", "--gpgdir", "/nonexistent", "--noconfirm"),
    ]
    subprocess.run([*pacman, "-Udd", "--noscriptlet", *map(str, packages)], check=True, capture_output=True)
    verify = subprocess.run([*pacman, "-Qkk"], check=False, capture_output=True, text=True)
    assert verify.returncode == 0, verify.stdout + verify.stderr
    assert verify.stdout.count(" 0 altered files") == len(packages)
