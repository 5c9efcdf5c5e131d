"""`inv aur.push` of a small package, to a bare repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.checkouts import Checkout

pytestmark = pytest.mark.integration


def test_a_folder_is_built_by_plain_makepkg_and_pushed(checkout: Checkout, tmp_path: Path) -> None:
    remote = tmp_path / "small.git"
    subprocess.run(["git", "init", "--quiet", "--bare", remote], check=True)
    env = {
        f"GIT_{who}_{what}": "x@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    env["INVOKE_PIPELINE_AUR"] = str(remote)
    said = checkout.run("aur.push", env=env).fine()
    assert "makepkg made small-1.0-1-x86_64.pkg.tar" in said.err
    assert "+pkgver=1.0" in said.out
    assert "Pushed" in said.out
    listed = ["git", "-C", str(remote), "ls-tree", "--name-only", "master"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
    assert names == [".SRCINFO", "PKGBUILD", "small-helper", "small.conf", "small.service"]
    again = checkout.run("aur.push", "--no-build", env=env).fine()
    assert "not built before" in again.err
    assert "Nothing has changed" in again.out


def test_a_folder_that_does_not_build_is_not_pushed(checkout: Checkout, tmp_path: Path) -> None:
    remote = tmp_path / "small.git"
    subprocess.run(["git", "init", "--quiet", "--bare", remote], check=True)
    pkgbuild = checkout.root / "PKGBUILD.in"
    pkgbuild.write_text(pkgbuild.read_text().replace("package_small() {", "package_small() {\n  false"))
    said = checkout.run("aur.push", env={"INVOKE_PIPELINE_AUR": str(remote)})
    said.failed(1)
    assert not list((remote / "refs" / "heads").iterdir())
