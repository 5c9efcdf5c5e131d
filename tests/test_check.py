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
}


def test_every_planted_fault_is_found(checkout: Checkout, source: Small) -> None:
    """A check that cannot fail lets the fault through to every user."""
    Small(source.archive, source.url, package=PLANTED).write(checkout.root)
    (checkout.root / "package" / "small.install").write_text("post_install() {\n")
    checkout.run("build", "small").fine()
    checked = checkout.run("check", "small").failed(1)
    findings = json.loads((checkout.latest / "check-findings.json").read_text())["findings"]
    errors = {(f["code"], f["path"]) for f in findings if f["level"] == "error"}
    assert FOUND - errors == set()
    assert {f["path"] for f in findings if f["level"] == "warning"} >= {"usr/share/dangling"}
    for code, path in FOUND:
        assert f"error {code}: " in checked.err
        assert path in checked.err
    others = {(code, path.partition("/")[0]) for code, path in errors - FOUND}
    assert {code for code, _ in others} <= {"place", "unit", "script-syntax"}, errors - FOUND


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
    assert "check: " in checkout.run("check", "small").fine().out
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
    assert "No such file" in checkout.run("check", "nothing.pkg.tar.xz").failed(3).err


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
