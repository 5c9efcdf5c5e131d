"""`inv reproduce`: each planted cause is named, and what is clean passes with everything varied."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from pipeline import files
from pipeline.image.assembly import Image
from tests import checkouts
from tests.checkouts import Checkout
from tests.released import RELEASE, Released
from tests.small import Small

pytestmark = pytest.mark.integration

# What a build may do wrong, and the cause that must be named for it.
PLANTED = {
    "date": ("date", "compile-date"),
    "host": ("hostname", "host-name"),
    "who": ("echo built by $(whoami)", "user-name"),
    "home": ("echo $HOME", "home"),
    "zone": ("date -d @1600000000 +%Z", "time-zone"),
    "sorted": ("printf '%s\\n' b C a | sort", "locale-order"),
    "listed": ("ls -U many", "folder-order"),
    "number": ("printf '%.1f\\n' 1", "locale-format"),
    "jobs": ("echo $MAKEFLAGS", "jobs"),
    "zipped.gz": ("gzip -c small.1", "gzip-header"),
    "packed.tar": ("tar -c --mtime=@0 --owner=0 --group=0 --mode=a+rX many", "archive-order"),
}
PLANT = (
    "mkdir many; touch many/{{1..9}}; touch -d @$(date +%s) small.1; "
    "d=$stage/small/usr/share/small; mkdir -p $d; {}"
)


def test_each_planted_cause_is_named(checkout: Checkout, source: Small) -> None:
    """Or a maintainer would be left with a heap of differing bytes."""
    lines = "; ".join(f'{{ {command}; }} > "$d/{name}"' for name, (command, _) in PLANTED.items())
    dataclasses.replace(source, build=PLANT.format(lines)).write(checkout.root)
    checkout.run("build").fine()
    said = checkout.run("reproduce").failed(1).err
    assert "other bytes in" in said, said
    text = (checkout.latest / "reproduce" / "explanation.txt").read_text()
    for name, (_, code) in PLANTED.items():
        lines_about = [line for line in text.splitlines() if f"usr/share/small/{name}" in line]
        assert len(lines_about) == 1, (name, text)
        assert f"({code})" in lines_about[0], lines_about

    reports = list((checkout.latest / "reproduce").glob("*.html"))
    assert reports
    assert "usr/share/small/date" in reports[0].with_suffix(".txt").read_text()
    evidence = json.loads((checkout.latest / "evidence" / "reproduce.json").read_text())
    assert evidence["passed"] is False
    # One circumstance alone shows its own fault only.
    alone = checkout.run("reproduce", "--vary", "host-name").failed(1).err
    assert "usr/share/small/host:" in alone
    assert "usr/share/small/home:" not in alone


def test_the_umask_is_named_where_the_build_does_not_set_it(checkout: Checkout) -> None:
    """makepkg sets it, and so do we; a driver that forgets to would make other packages for other users."""
    for name in ("compile.sh", "package.sh"):
        path = checkout.root / "pipeline" / "makepkg" / name
        text = path.read_text()
        assert "umask 022\n" in text
        path.write_text(text.replace("umask 022\n", ""))
    checkout.run("build").fine()
    assert "(umask)" in checkout.run("reproduce", "--vary", "umask").failed(1).err


def test_what_is_clean_passes_with_everything_varied(
    checkout: Checkout, image: Image, tmp_path: Path
) -> None:
    """And the evidence says what was varied, and what could not be."""
    checkout.run("build").fine()
    before = {name: files.sha256(checkout.latest / name) for name in checkout.packages()}
    said = checkout.run("reproduce").fine()
    evidence = json.loads((checkout.latest / "evidence" / "reproduce.json").read_text())
    assert evidence["passed"]
    assert evidence["packages"] == before
    assert evidence["summary"] in said.out
    done = evidence["summary"].partition("varied: ")[2].partition("; not varied: ")
    assert {"clock", "locale", "user", "order", "checkout"} <= set(done[0].split(", "))
    assert done[2] == "engine (the settings want bubblewrap)"
    assert not (checkout.latest / "reproduce").exists()
    again = checkout.run("reproduce").fine()
    assert "on these very packages, before" in again.err
    assert "Building again" not in again.err
    assert "no variation" not in again.err
    assert "moon" in checkout.run("reproduce", "--vary", "moon").failed(2).err
    file = checkout.latest / next(iter(before))
    assert "same bytes; varied: home" in checkout.run("reproduce", str(file), "--vary", "home").fine().out
    elsewhere = tmp_path / file.name
    shutil.copy(file, elsewhere)
    assert "no record of a build" in checkout.run("reproduce", str(elsewhere)).failed(2).err


def test_another_recipe_is_not_taken_for_the_same(checkout: Checkout) -> None:
    """Or a rebuild of something else would stand as evidence."""
    checkout.run("build").fine()
    path = checkout.root / "package" / "small.conf"
    path.write_text(path.read_text() + "# changed\n")
    said = checkout.run("reproduce").failed(2).err
    assert "is no longer what build" in said
    assert "second build" not in said
    assert not (checkout.latest / "evidence" / "reproduce.json").exists()


def test_docker_and_another_checkout_give_the_same_bytes_of_xen(
    released: Released, tmp_path: Path, docker_env: dict[str, str]
) -> None:
    """Or nobody could find out from the packages alone that they are what the sources say."""
    checkout = Checkout(checkouts.copy(tmp_path / "copy"), released.checkout.store, docker_env)
    folder = checkout.artifacts / RELEASE
    folder.mkdir(parents=True)
    (folder / released.folder.name).symlink_to(released.folder)
    (folder / "latest").symlink_to(released.folder.name)
    argv = ("reproduce", RELEASE, "--vary", "engine,checkout,clock,time-zone,locale,host-name,home,jobs")
    said = checkout.run(*argv, timeout=1800).fine()
    assert "same bytes" in said.out
    assert "engine" in said.out.partition("varied: ")[2].partition("; not varied")[0]
