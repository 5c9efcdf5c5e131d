from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import aur
from pipeline.aur import RejectedError
from pipeline.errors import HostError

SRCINFO = """pkgbase = small
\tpkgdesc = A small package
\tpkgver = {version}
\tpkgrel = 1
\turl = https://example.org/
\tinstall = small.install
\tsource = small.conf
\tsource = https://example.org/small.tar.gz

pkgname = small

pkgname = small-docs
"""

HOOK = """#!/bin/sh
# What the AUR's own hook does, as far as a test needs it.
[ "$1" = refs/heads/master ] || { echo 'error: pushing to a branch other than master is restricted'; exit 1; }
case $2 in
  *[!0]*) git merge-base --is-ancestor "$2" "$3" || { echo 'error: denying non-fast-forward'; exit 1; } ;;
esac
for file in PKGBUILD .SRCINFO; do
  git cat-file -e "$3:$file" || { echo "error: missing $file"; exit 1; }
done
! git ls-tree "$3" | grep -q ' tree ' || { echo 'error: must not contain subdirectories'; exit 1; }
"""


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Somebody")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "somebody@example.org")


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    path = tmp_path / "small.git"
    subprocess.run(["git", "init", "--quiet", "--bare", path], check=True)
    (path / "hooks" / "update").write_text(HOOK)
    (path / "hooks" / "update").chmod(0o755)
    return path


def folder(path: Path, version: str = "1.0") -> Path:
    path.mkdir()
    (path / "PKGBUILD").write_text(f"pkgver={version}\n")
    (path / ".SRCINFO").write_text(SRCINFO.format(version=version))
    (path / "small.install").write_text("post_install() { :; }\n")
    (path / "small.conf").write_text("answer=42\n")
    return path


def log(remote: Path) -> list[str]:
    command = ["git", "-C", str(remote), "log", "--format=%s", "master"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()


def push(path: Path, remote: Path, tmp_path: Path) -> str:
    return aur.push(path, str(remote), (path / ".SRCINFO").read_text(), tmp_path / "work")


def test_every_change_becomes_a_commit_that_says_what_it_is(
    remote: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Pushed" in push(folder(tmp_path / "1"), remote, tmp_path)
    assert "Nothing has changed" in push(folder(tmp_path / "2"), remote, tmp_path)
    push(folder(tmp_path / "3", "2.0"), remote, tmp_path)
    assert "+pkgver=2.0" in capsys.readouterr().out
    same = folder(tmp_path / "4", "2.0")
    (same / "small.conf").write_text("answer=43\n")
    push(same, remote, tmp_path)
    assert log(remote) == ["Change small.conf", "Update to 2.0-1", "Initial import: 1.0-1"]


def test_files_that_are_gone_are_removed(remote: Path, tmp_path: Path) -> None:
    first = folder(tmp_path / "1")
    (first / "old.patch").write_text("x")
    push(first, remote, tmp_path)
    push(folder(tmp_path / "2"), remote, tmp_path)
    command = ["git", "-C", str(remote), "ls-tree", "--name-only", "master"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "old.patch" not in listed
    assert ".SRCINFO" in listed


def test_a_dry_run_pushes_nothing(remote: Path, tmp_path: Path) -> None:
    path = folder(tmp_path / "1")
    said = aur.push(path, str(remote), (path / ".SRCINFO").read_text(), tmp_path / "work", dry_run=True)
    assert "Would be pushed" in said
    assert log(remote) == []


def damage(name: str, text: str) -> Callable[[Path], object]:
    return lambda path: (path / name).write_text(text)


@pytest.mark.parametrize(
    ("plant", "problem"),
    [
        (lambda path: (path / "PKGBUILD").unlink(), "no PKGBUILD"),
        (lambda path: (path / ".SRCINFO").unlink(), r"no \.SRCINFO"),
        (lambda path: (path / "keys").mkdir(), "not a plain file"),
        (lambda path: (path / "link").symlink_to("PKGBUILD"), "not a plain file"),
        (lambda path: (path / "large").write_bytes(bytes(aur.MAX_BLOB + 1)), "limit"),
        (lambda path: (path / "small.install").unlink(), r"no small\.install"),
        (lambda path: (path / "small.conf").unlink(), r"no small\.conf"),
        (damage(".SRCINFO", SRCINFO.format(version="9")), "not what makepkg"),
        (damage(".SRCINFO", "pkgver = 1\n"), "before pkgbase"),
        (damage(".SRCINFO", "pkgbase = small\n"), "names no package"),
    ],
)
def test_what_the_aur_would_reject_is_not_pushed(
    remote: Path, tmp_path: Path, plant: Callable[[Path], object], problem: str
) -> None:
    path = folder(tmp_path / "1")
    printed = (path / ".SRCINFO").read_text()
    plant(path)
    with pytest.raises(RejectedError, match=problem):
        aur.push(path, str(remote), printed, tmp_path / "work")
    assert log(remote) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("pkgbase = small", "pkgbase = other", "package base is other"),
        ("pkgname = small-docs", "pkgname = Small", "not a name"),
        ("A small package", "x" * 256, "longer than 255"),
        ("\tpkgrel = 1\n", "", "no pkgrel"),
        ("\tpkgrel = 1\n", "\tpkgrel = 1\n\tepoch = x\n", "epoch"),
    ],
)
def test_metadata_that_the_aur_would_reject_is_not_pushed(
    remote: Path, tmp_path: Path, old: str, new: str, problem: str
) -> None:
    path = folder(tmp_path / "1")
    (path / ".SRCINFO").write_text(SRCINFO.format(version="1.0").replace(old, new))
    with pytest.raises(RejectedError, match=problem):
        push(path, remote, tmp_path)
    assert log(remote) == []


def test_what_the_hook_rejects_is_said(remote: Path, tmp_path: Path) -> None:
    (remote / "hooks" / "update").write_text("#!/bin/sh\necho 'error: package is blacklisted'\nexit 1\n")
    with pytest.raises(HostError, match="did not take") as raised:
        push(folder(tmp_path / "1"), remote, tmp_path)
    assert "blacklisted" in str(raised.value.hint)


def test_a_repository_that_is_not_there_is_the_hosts_failure(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be cloned"):
        push(folder(tmp_path / "1"), tmp_path / "none" / "small.git", tmp_path)


@given(
    st.text(max_size=300)
    | st.lists(st.sampled_from(["pkgbase = a", "pkgname = b", "x = y", "="])).map("\n".join)
)
def test_any_text_is_a_srcinfo_or_rejected(text: str) -> None:
    try:
        info = aur.parse(text)
    except RejectedError:
        return
    assert info.packages
