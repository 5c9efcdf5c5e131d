"""What `./inv diff` tells a maintainer before a release goes out."""

from __future__ import annotations

import gzip
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipeline.diff import pages
from pipeline.diff.compare import Difference, compare
from pipeline.diff.render import render
from pipeline.package import Package, read
from tests import builds
from tests.checkouts import Checkout

OLD_PAGE = r""".TH XL.CFG 5
.SH OPTIONS
.IP "\fBvcpus=N\fR" 4
text
.IP "\fBnode=N\fR" 4
"""
OLD = {
    "etc/xen/xl.conf": b"autoballoon=1\nlockfile=x\n",
    "etc/xen/scripts/vif": b"#!/bin/bash\nold\n",
    "usr/bin/xl": b"old",
    "usr/lib/libxenctrl.so.4.17": b"",
    "usr/lib/libxenctrl.so.4.17.0": b"",
    "usr/lib/libgone.so.1": b"",
    "usr/share/xen/hypervisor.config": b"#\nCONFIG_HVM=y\nCONFIG_NR_CPUS=256\n# CONFIG_PV32 is not set\n",
    "usr/bin/xm": b"gone",
    "usr/lib/gone/a": b"",
    "usr/lib/gone/b": b"",
    "usr/share/man/man5/xl.cfg.5.gz": gzip.compress(OLD_PAGE.encode()),
}
NEW = {
    "etc/xen/xl.conf": b"autoballoon=auto\nlockfile=x\n",
    "etc/xen/scripts/vif": b"#!/bin/bash\nnew\n",
    "usr/bin/xl": b"newer",
    "usr/lib/libxenctrl.so.4.20": b"",
    "usr/lib/libxenctrl.so.4.20.0": b"",
    "usr/share/xen/hypervisor.config": b"#\nCONFIG_HVM=y\nCONFIG_NR_CPUS=16383\nCONFIG_PV32=y\nCONFIG_X=y\n",
    "usr/bin/xentop": b"new",
    "usr/share/man/man5/xl.cfg.5.gz": gzip.compress(OLD_PAGE.replace("node=N", "pci=[]").encode()),
}


def written(folder: Path, contents: dict[str, bytes], version: str, info: str, name: str = "xen") -> Package:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-any.pkg.tar.xz"
    path.write_bytes(builds.package(name, version, contents, info=info))
    return read(path)


def difference(tmp_path: Path) -> list[Difference]:
    old = written(tmp_path / "a", OLD, "4.17-1", "depend = glibc\ndepend = gcc-libs\n")
    new = written(tmp_path / "b", NEW, "4.20-1", "depend = glibc\ndepend = yajl\n")
    docs = written(tmp_path / "b", {"usr/share/doc/x": b""}, "4.20-1", "", "xen-docs")
    return compare([old], [new, docs])


def test_each_kind_of_change_is_told(tmp_path: Path) -> None:
    """A dependency, a setting or an option that goes unnoticed is noticed by users."""
    xen, docs = difference(tmp_path)
    assert (docs.before, docs.after) == (None, "4.20-1")
    assert set(xen.metadata) == {"- depend gcc-libs", "+ depend yajl"}
    assert xen.added == ("usr/bin/xentop",)
    assert xen.removed == ("usr/bin/xm", "usr/lib/gone/", "usr/lib/libgone.so.1")
    assert xen.libraries == ("usr/lib/libxenctrl.so: 4.17.0 → 4.20.0",)
    assert xen.kconfig == {
        "usr/share/xen/hypervisor.config": (
            "~ CONFIG_NR_CPUS: 256 → 16383",
            "~ CONFIG_PV32: n → y",
            "+ CONFIG_X=y",
        )
    }
    assert {c.path: c.what for c in xen.changed}["usr/bin/xl"] == "+2 bytes of 3"
    assert xen.settings == {"etc/xen/xl.conf": ("-autoballoon=1", "+autoballoon=auto")}
    assert xen.options == {"usr/share/man/man5/xl.cfg.5.gz": ("- node=N", "+ pci=[]")}
    text = render([xen, docs])
    assert "xen 4.17-1 → 4.20-1" in text
    assert "    + usr/bin/xentop\n" in text
    assert "    - usr/lib/gone/\n" in text
    assert "    - depend gcc-libs\n" in text
    assert text.endswith("xen-docs: only in the second build")


def test_what_is_the_same_is_one_line(tmp_path: Path) -> None:
    """Nobody reads a page that says nothing."""
    one = written(tmp_path / "a", OLD, "4.17-1", "")
    assert render(compare([one], [one])) == "The packages hold the same."


def test_what_was_only_compiled_again_is_a_number(tmp_path: Path) -> None:
    """Or a changed mode would drown among a hundred programs."""
    names = [f"usr/bin/{n:02}" for n in range(20)]
    old = written(tmp_path / "a", dict.fromkeys(names, b"a"), "1-1", "")
    new = written(tmp_path / "b", dict.fromkeys(names, b"b"), "1-1", "")
    text = render(compare([old], [new]))
    assert "usr/bin/: 20 files, +0 bytes, 20 with other content of the same size" in text
    assert "usr/bin/07" not in text


def test_the_command_takes_folders_and_files(checkout: Checkout, tmp_path: Path) -> None:
    """A maintainer compares what was downloaded with what was built."""
    difference(tmp_path)
    file = next((tmp_path / "a").iterdir())
    said = checkout.run("diff", str(file), str(tmp_path / "b")).fine().out
    assert "+ depend yajl" in said
    assert "no file" in checkout.run("diff", str(tmp_path / "x.pkg.tar.xz"), str(file)).failed(2).err


def test_an_option_is_the_same_however_it_is_set_in_type() -> None:
    """Or a page that was only written anew would seem to have lost all its options."""
    one, other = ".TP\n.B Arrows\n.TP\n\\fB\\-f\\fR\n", '.IP "\\fBArrows\\fR" 4\n.TP\n.BR -f\n'
    assert pages.described(one) == pages.described(other) == ("Arrows",)


@given(st.text(max_size=300))
def test_any_page_has_a_description(page: str) -> None:
    """Pages come from anywhere."""
    assert all(name.strip() for name in pages.described(page))
