"""The checks that take an engine, each seen to fail; what a release accepts; what pacman says."""

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

from pipeline import release
from pipeline.check.checker import Checker
from pipeline.engine.bubblewrap import Bubblewrap
from pipeline.image.assembly import Image
from pipeline.package import Package
from tests.check.planted import Entry, good, script
from tests.checkouts import Checkout
from tests.small import Small

pytestmark = pytest.mark.integration


def findings(checkout: Checkout) -> list[dict[str, str]]:
    """Read what the last check found."""
    found: list[dict[str, str]] = json.loads((checkout.latest / "check-findings.json").read_text())[
        "findings"
    ]
    return found


# What bash and systemd-analyze must not let pass, and whom it is said of; each is a package of its own.
SERVICE = "[Unit]\nDescription=x\n[Service]\n{}\n"
FAULTS = {
    "unfinished": ("usr/bin/x", script("#!/bin/bash\nif true; then\n"), "error script-syntax usr/bin/x"),
    "by env": ("usr/bin/x", script("#!/usr/bin/env bash\n((\n"), "error script-syntax usr/bin/x"),
    "odd name": ("usr/bin/two\twords", script("#!/bin/sh\nfi\n"), "error script-syntax usr/bin/two"),
    "nonsense": (
        "usr/lib/systemd/system/x.service",
        Entry(SERVICE.format("Type=nonsense\nExecStart=/usr/bin/small").encode()),
        "error unit usr/lib/systemd/system/x.service",
    ),
    "gone": (
        "usr/lib/systemd/system/x.service",
        Entry(SERVICE.format("ExecStartPre=/usr/bin/grep x\nExecStart=/usr/bin/gone").encode()),
        "error unit usr/lib/systemd/system/x.service",
    ),
}


@pytest.fixture(scope="module")
def checker(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Checker:
    """A checker with the real image and an engine."""
    work = tmp_path_factory.mktemp("checker")
    return Checker(image, Bubblewrap(work), work, release.read("4.17"))


def said(checker: Checker, package: Package) -> list[str]:
    return [f"{f.level} {f.code} {f.path}" for f in checker.verify([package])]


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_is_one_finding(fault: str, checker: Checker, tmp_path: Path) -> None:
    """Or a script or unit that cannot even be read would first be seen on a user's machine."""
    path, entry, wanted = FAULTS[fault]
    assert said(checker, good(**{path: entry}).write(tmp_path)) == [wanted]


def test_the_install_script(checker: Checker, tmp_path: Path) -> None:
    """pacman would stop in the middle of an upgrade; and what is right is not complained of."""
    draft = good(
        **{"usr/lib/systemd/system/x.service": Entry(SERVICE.format("ExecStart=/usr/bin/small").encode())}
    )
    draft.install = "post_install() {\n  true\n}\n"
    assert said(checker, draft.write(tmp_path)) == []
    draft.install = "post_install() {\n"
    assert said(checker, draft.write(tmp_path)) == ["error script-syntax .INSTALL"]


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
    assert (
        "warning idle: small, small-docs: usr/bin/gone: pie is accepted here, but no longer found" in said.err
    )


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
    srcinfo = checkout.latest / "aur" / ".SRCINFO"
    right = srcinfo.read_text()
    srcinfo.write_text(right.replace("pkgver = 1.0", "pkgver = 1.1"))
    (checkout.latest / "evidence" / "check.json").unlink()
    assert "error srcinfo: small: .SRCINFO" in checkout.run("check", "small").failed(1).err
    srcinfo.write_text(right)
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
