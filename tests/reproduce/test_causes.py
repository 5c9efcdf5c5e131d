"""The catalogue of causes: each is recognised by its bytes, and no bytes make a traceback."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import py_compile
import stat
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.job import Circumstances
from pipeline.package import Member
from pipeline.reproduce.case import Case
from pipeline.reproduce.causes import catalogue, explain
from pipeline.reproduce.detect import DETECTORS
from pipeline.reproduce.difference import Difference, Side, compare
from tests import builds
from tests.check.planted import Entry, good

SECOND = Circumstances(
    hostname="another-host",
    user="somebody",
    uid=12345,
    environment={"TZ": "XYZ-13:45", "HOME": "/tmp/elsewhere", "LC_ALL": "de_DE.UTF-8"},
)


def cause(
    one: bytes | None, two: bytes | None, path: str = "usr/share/x", jobs: tuple[int, int] = (2, 3)
) -> str:
    member = Member(path, stat.S_IFREG | 0o644, 0, 0, 1, 0)
    sides = (Side(member if data is not None else None, data) for data in (one, two))
    return explain(Case(Difference("x.pkg.tar.xz", path, *sides), Circumstances(), SECOND, (2, 3))).cause.code


def elf(padding: bytes) -> bytes:
    """A 32-bit ELF file with one segment, and bytes behind it."""
    header = (
        b"\x7fELF\x01\x01"
        + bytes(10)
        + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, 0, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    )
    segment = struct.pack("<IIIIIIII", 1, 84, 0, 0, 16, 16, 5, 4)
    return header + segment + b"c" * 16 + padding


def pe(time: int) -> bytes:
    return (
        b"MZ"
        + bytes(58)
        + struct.pack("<I", 64)
        + b"PE\0\0"
        + struct.pack("<HHI", 0x8664, 1, time)
        + bytes(40)
    )


def tar(*names: str, **attributes: int | str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.addfile(info)
    return file.getvalue()


def pyc(folder: Path, time: int) -> bytes:
    source = folder / "x.py"
    source.write_text("x = 1\n")
    os.utime(source, (time, time))
    return Path(py_compile.compile(str(source), cfile=str(folder / "x.pyc")) or "").read_bytes()


def xz(data: bytes, *options: str) -> bytes:
    return subprocess.run(["xz", "-c", *options], input=data, check=True, capture_output=True).stdout


ELF = b"\x7fELF" + b"\0" * 100
BANNER = b"Xen version 4.2.5 (%s@%s) (gcc 10.2.1) debug=n %s\0"


def moved(banner: bytes, by: int) -> bytes:
    """A program in which a longer banner has moved what follows, and so every address in the code."""
    code = b"".join(struct.pack("<QQ", 0xFFFF82D040200000 + n * 64 + by, n) for n in range(1000))
    return (b"\x7fELF\x02\x01" + code + banner).ljust(40_000, b"\0")


@pytest.mark.parametrize(
    ("path", "one", "two", "code"),
    [
        ("x", b"1", None, "gone"),
        ("x", b"built 2026-11-24 10:00", b"built 2027-12-29 11:12", "compile-date"),
        ("x", b"Tue Nov 24 10:00:00 UTC 2026\n", b"Do 30. Dez 2027\n", "compile-date"),
        ("x", b"1700000000", b"1734560000", "compile-date"),
        ("x", b"on xen-build\n", b"on another-host\n", "host-name"),
        ("x", ELF + b"xen-build\0\0\0", ELF + b"another-host", "host-name"),
        ("x", b"by builder\n", b"by somebody\n", "user-name"),
        ("x", b"uid=1000\n", b"uid=12345\n", "user-name"),
        ("x", b"~ is /build\n", b"~ is /tmp/elsewhere\n", "home"),
        ("x", b"-fdir=/build/src/xen\n", b"-fdir=/other/src/xen\n", "build-path"),
        ("x", b"UTC\n", b"XYZ\n", "time-zone"),
        ("x", b"10:00 UTC 2026-11-24\n", b"23:45 XYZ 2026-11-24\n", "time-zone"),
        ("x", b"A\nb\nc\n", b"b\nA\nc\n", "folder-order"),
        ("x", b"B\na\nc\n", b"a\nB\nc\n", "locale-order"),
        ("x", b"a b c d\n", b"d c b a\n", "folder-order"),
        ("x", b"1.5 s\n", b"1,5 s\n", "locale-format"),
        ("x", b"make -j2\n", b"make -j3\n", "jobs"),
        ("x.gz", gzip.compress(b"x", mtime=1), gzip.compress(b"x", mtime=2), "gzip-header"),
        ("x.gz", gzip.compress(b"x" * 999, 1, mtime=0), gzip.compress(b"x" * 999, 9, mtime=0), "compressor"),
        ("x.tar", tar("a", "b"), tar("b", "a"), "archive-order"),
        ("x.tar", tar("a", mtime=1), tar("a", mtime=2), "archive-mtime"),
        ("x.tar", tar("a", uname="builder"), tar("a", uname="somebody"), "archive-owner"),
        ("x.tar", tar("a", mode=0o644), tar("a", mode=0o600), "archive-mode"),
        ("x", b"in /tmp/tmp.A1b2C3d4E5\n", b"in /tmp/tmp.Z9y8X7w6V5\n", "temporary-name"),
        ("boot/xen", elf(b"1"), elf(b"2"), "mkelf32-padding"),
        ("usr/lib/xen/boot/xen-shim", elf(b"1"), elf(b"2"), "mkelf32-padding"),
        ("usr/lib/xen/efi/xen.efi", pe(1), pe(2), "pe-timestamp"),
        ("boot/xen", BANNER % (b"builder", b"y", b"T"), BANNER % (b"somebody", b"y", b"T"), "xen-banner"),
        ("boot/xen", BANNER % (b"x", b"y", b"Nov 24"), BANNER % (b"x", b"y", b"Dec 30"), "xen-banner"),
        (
            "boot/xen.gz//",
            moved(BANNER % (b"x", b"y", b"Nov 24 10:00"), 0),
            moved(BANNER % (b"x", b"another-host", b"Dec 30 11:12"), 11),
            "xen-banner",
        ),
        ("boot/xen.gz//", moved(b"", 0), moved(b"", 11), "unknown"),
        ("xen-syms.map", b"0xffff82d040200000 T a\n0xffff82d040200040 T b\n",
            b"0xffff82d040200000 T a\n0xffff82d040200050 T b\n", "addresses"),
        ("xen-syms.map", b"0xffff82d040200000 T a\n", b"0xffff82d040200000 T b\n", "unknown"),
        ("x.map", b"ffff82d0 T a\nffff82d0 T B\n", b"ffff82d0 T B\nffff82d0 T a\n", "folder-order"),
        ("usr/share/man/man1/xl.1", b'.TH XL "2026-11-24"\n', b'.TH XL "2027-12-29"\n', "man-date"),
        ("x", b"\0\1\2\3", b"\3\1\2\0\7", "unknown"),
    ],
)  # fmt: skip
def test_each_cause_is_recognised_by_its_bytes(
    path: str, one: bytes | None, two: bytes | None, code: str
) -> None:
    """A wrong name would send a maintainer the wrong way; no name is better."""
    assert cause(one, two, path) == code


def test_byte_code_and_compressor_threads(tmp_path: Path) -> None:
    """Made by the real python and the real xz."""
    assert cause(pyc(tmp_path, 1), pyc(tmp_path, 2), "x.pyc") == "pyc"
    data = bytes(range(256)) * 8192
    assert cause(xz(data, "-T1"), xz(data, "-T2", "--block-size=1MiB"), "x.xz") == "compressor"


def package(folder: Path, name: str, **members: bytes) -> Path:
    path = folder / name / "small-1.0-1-any.pkg.tar.xz"
    path.parent.mkdir()
    path.write_bytes(
        builds.package("small", contents={f"usr/{key}": value for key, value in members.items()})
    )
    return path


def test_differences_are_found_inside_of_what_is_packed(tmp_path: Path) -> None:
    """`boot/xen.gz differs` says nothing: the banner is two layers down."""
    first = package(tmp_path, "1", a=gzip.compress(tar("x") + b"1", mtime=0), same=b"1")
    second = package(tmp_path, "2", a=gzip.compress(tar("y") + b"1", mtime=0), same=b"1")
    assert {d.path for d in compare(first, second)} == {"usr/a////x", "usr/a////y"}


def test_no_cause_hides_another(tmp_path: Path) -> None:
    """Under another umask, every file has another mode; the date in one of them is a fault of its own."""
    packages = []
    for name, mode, text in (("1", 0o644, b"built 2026-11-24\n"), ("2", 0o600, b"built 2027-12-29\n")):
        draft = good(**{"usr/lib/date": Entry(text, mode), "usr/lib/same": Entry(b"1", mode)})
        packages.append(draft.write(tmp_path / name).file)
    found = [explain(Case(d, Circumstances(), SECOND, (2, 2))) for d in compare(*packages)]
    assert [(f.difference.path, f.cause.code) for f in found] == [
        ("usr/lib/date", "umask"),
        ("usr/lib/date", "compile-date"),
        ("usr/lib/same", "umask"),
    ]


def test_what_is_inside_hides_nothing_outside(tmp_path: Path) -> None:
    """Or gzip without -n, and an unsorted archive, would come to light only when their content is mended."""
    dates = b"built 2026-11-24\n", b"built 2027-12-29\n"
    zipped = [gzip.compress(date, mtime=time) for time, date in enumerate(dates)]
    tars = []
    for names, date in (("ab", dates[0]), ("ba", dates[1])):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name in names:
                info = tarfile.TarInfo(name)
                info.size = len(date)
                archive.addfile(info, io.BytesIO(date))
        tars.append(file.getvalue())
    packages = [package(tmp_path, str(n), gz=zipped[n], tar=tars[n]) for n in (0, 1)]
    found = [explain(Case(d, Circumstances(), SECOND, (2, 2))) for d in compare(*packages)]
    assert [(f.difference.path, f.cause.code) for f in found] == [
        ("usr/gz", "gzip-header"),
        ("usr/gz//", "compile-date"),
        ("usr/tar", "archive-order"),
        ("usr/tar//a", "compile-date"),
        ("usr/tar//b", "compile-date"),
    ]


def test_the_same_members_packed_differently(tmp_path: Path) -> None:
    """xz with another number of threads, or members in another order."""
    first = package(tmp_path, "1", a=b"1", b=b"2")
    second = tmp_path / "small-1.0-1-any.pkg.tar.xz"
    second.write_bytes(lzma.compress(lzma.decompress(first.read_bytes()), preset=9))
    (found,) = compare(first, second)
    assert explain(Case(found, Circumstances(), SECOND, (2, 2))).cause.code == "compressor"
    file = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(lzma.decompress(first.read_bytes()))) as old,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as new,
    ):
        for member in reversed(old.getmembers()):
            new.addfile(member, old.extractfile(member))
    second.write_bytes(lzma.compress(file.getvalue()))
    (found,) = compare(first, second)
    assert explain(Case(found, Circumstances(), SECOND, (2, 2))).cause.code == "archive-order"


@given(one=st.binary(max_size=300), two=st.binary(max_size=300))
def test_any_two_contents_are_explained_or_unknown(one: bytes, two: bytes) -> None:
    """A detector that fails on odd bytes would hide what differs."""
    assert cause(one, two, "boot/xen.pyc")
    for prefix in (b"\x7fELF\x01\x01", b"MZ", b"\x1f\x8b\x08", b"!<arch>\n", b"070701", b"\xfd7zXZ\0"):
        assert cause(prefix + one, prefix + two, "boot/xen.pyc")


def test_the_catalogue_uses_every_detector_and_says_what_to_do() -> None:
    """A cause without a remedy helps nobody."""
    assert {cause.detector for cause in catalogue()} == set(DETECTORS)
    assert len({cause.code for cause in catalogue()}) == len(catalogue())
    assert all(cause.title and cause.remedy.endswith(".") for cause in catalogue())
