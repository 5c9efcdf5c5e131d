"""`inv reproduce`: each planted cause is named, and what is clean passes with everything varied."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import time
from pathlib import Path

import pytest

from pipeline import files
from pipeline.image.assembly import Image
from tests import checkouts
from tests.checkouts import Checkout
from tests.released import RELEASE, Released
from tests.small import Small

pytestmark = pytest.mark.integration

# What a build may do wrong: a file, what makes it, and the cause that must be named for it.
SHARE = "usr/share/small/"
PLANTED = {
    f"{SHARE}date": ("date", "compile-date"),
    # Other days only by another clock: the shell's own, and the compiler's.
    f"{SHARE}day": ("printf '%(%F)T\\n'", "compile-date"),
    f"{SHARE}compiled.i": ("echo __DATE__ | env -u SOURCE_DATE_EPOCH gcc -E -P -", "compile-date"),
    f"{SHARE}host": ("hostname", "host-name"),
    f"{SHARE}who": ("echo built by $(whoami)", "user-name"),
    f"{SHARE}home": ("echo $HOME", "home"),
    f"{SHARE}zone": ("date -d @1600000000 +%Z", "time-zone"),
    f"{SHARE}sorted": (r"printf '%s\n' b C a | sort", "locale-order"),
    f"{SHARE}listed": ("ls -U many", "folder-order"),
    f"{SHARE}number": (r"printf '%.1f\n' 1", "locale-format"),
    f"{SHARE}jobs": ("echo $MAKEFLAGS", "jobs"),
    f"{SHARE}temporary": ("mktemp -u", "temporary-name"),
    f"{SHARE}zipped.gz": ("gzip -c small.1", "gzip-header"),
    f"{SHARE}packed.xz": (
        "head -c 5M /dev/zero | xz -c -T$(( ${MAKEFLAGS//[^0-9]/} % 2 + 1 ))",
        "compressor",
    ),
    f"{SHARE}packed.tar": (
        "tar -c --mtime=@0 --owner=0 --group=0 --mode=a+rX many",
        "archive-order",
    ),
    f"{SHARE}owned.tar": ("tar -c --mtime=@0 --mode=a+rX README", "archive-owner"),
    f"{SHARE}timed.tar": ("tar -c --owner=0 --group=0 --mode=a+rX small.1", "archive-mtime"),
    f"{SHARE}small.pyc": (
        "env -u SOURCE_DATE_EPOCH python3 -m compileall -q small.py && cat __pycache__/small.*.pyc",
        "pyc",
    ),
    "usr/lib/xen/efi/xen.efi": (
        "printf '.globl _start\n_start: ret\n' | as -o /tmp/e.o - && "
        "env -u SOURCE_DATE_EPOCH ld -m i386pep --insert-timestamp -e _start -o /tmp/e.efi /tmp/e.o && "
        "cat /tmp/e.efi",
        "pe-timestamp",
    ),
    "boot/xen.gz": (
        "printf '.globl _start\n_start: ret\n' | as --32 -o /tmp/s.o - && "
        "ld -s -m elf_i386 -o /tmp/s /tmp/s.o && head -c 8 /dev/urandom >> /tmp/s && gzip -nc /tmp/s",
        "mkelf32-padding",
    ),
    "boot/xen-banner": (
        "printf 'Xen version 4.17 (%s@%s) (gcc 12)' $(whoami) $(hostname)",
        "xen-banner",
    ),
    "usr/share/man/man1/dated.1": (
        "printf '=head1 NAME\n\nx - y\n' | env -u SOURCE_DATE_EPOCH pod2man --name DATED",
        "man-date",
    ),
}  # fmt: skip
PLANT = (
    "mkdir many; touch many/{{1..9}}; echo x=1 > small.py; touch -d @$(date +%s) small.1 small.py; "
    "s=$stage/small; mkdir -p $s/boot $s/usr/share/{{small,man/man1}} $s/usr/lib/xen/efi; {}"
)


def test_each_planted_cause_is_named(checkout: Checkout, source: Small) -> None:
    """Or a maintainer would be left with a heap of differing bytes."""
    lines = "; ".join(f'{{ {command}; }} > "$s/{path}"' for path, (command, _) in PLANTED.items())
    dataclasses.replace(source, build=PLANT.format(lines)).write(checkout.root)
    checkout.run("build").fine()
    said = checkout.run("reproduce").failed(1).err
    assert "other bytes in" in said, said
    text = (checkout.latest / "reproduce" / "explanation.txt").read_text()
    for path, (_, code) in PLANTED.items():
        lines_about = [line for line in text.splitlines() if re.search(rf": {re.escape(path)}[:./]", line)]
        assert len(lines_about) == 1, (path, text)
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


def test_a_second_build_that_fails_leaves_its_log_and_no_explanation_of_another(
    checkout: Checkout, source: Small
) -> None:
    """Or a night would name the causes of an earlier rebuild for a compile that broke."""
    tomorrow = int(time.time()) + 86400
    # The second build's clock is months ahead.
    dataclasses.replace(source, build=f"[ $(date +%s) -lt {tomorrow} ]").write(checkout.root)
    checkout.run("build").fine()
    results = checkout.latest / "reproduce"
    results.mkdir()
    (results / "explanation.txt").write_text("of another rebuild\n")
    said = checkout.run("reproduce").failed(1).err
    assert "The second build failed, though the first did not." in said
    (log,) = results.iterdir()
    assert log.name.endswith("compile.log")


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
