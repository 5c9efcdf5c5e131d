"""Reading packages that may come from anywhere: a bad one is named, and never a traceback."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline import package
from pipeline.errors import PipelineError
from pipeline.image import tree
from pipeline.package import PackageError, parse_key_values, parse_mtree

PKGINFO = b"# made\npkgname = small\npkgbase = small\npkgver = 1.0-1\narch = any\n"
BUILDINFO = b"format = 2\npkgname = small\nbuilddir = /build\n"
MTREE = b"#mtree\n/set type=file uid=0 gid=0 mode=644\n./usr type=dir mode=755\n./usr/a time=1.0 size=1 \\\n"
LINES = (b"./usr/a\\040b size=3 sha256digest=00 time=1.0", b"./l mode=777 type=link link=a\\134b")
GOOD_MTREE = MTREE.replace(b" \\\n", b"\n") + b"\n".join(LINES) + b"\n"

Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.type = kind
    info.linkname = target
    return info, data


GOOD: tuple[Member, ...] = (
    member(".PKGINFO", PKGINFO),
    member(".BUILDINFO", BUILDINFO),
    member(".MTREE", gzip.compress(GOOD_MTREE)),
    member("usr/", kind=tarfile.DIRTYPE),
    member("usr/file", b"text"),
    member("usr/link", kind=tarfile.SYMTYPE, target="file"),
)


def archive(members: tuple[Member, ...] = GOOD) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "small-1.0-1-any.pkg.tar.xz"
        path.write_bytes(lzma.compress(data, preset=0))
        return path

    return write


def test_a_package_is_read_whole(write: Callable[[bytes], Path]) -> None:
    """Every check looks at packages through this."""
    found = package.read(write(archive()))
    assert (found.name, found.version) == ("small", "1.0-1")
    assert [m.path for m in found.files] == ["usr", "usr/file", "usr/link"]
    assert found.members["usr/file"].content == b"text"
    assert found.members["usr/link"].target == "file"
    assert found.mtree["usr/a b"].size == 3
    assert found.mtree["l"].target == "a\\b"


@pytest.mark.parametrize(
    ("name", "members", "named"),
    [
        ("climbing", (*GOOD, member("usr/../../etc/passwd", b"x")), "leads out of it"),
        ("absolute", (*GOOD, member("/etc/passwd", b"x")), "leads out of it"),
        ("twice", (*GOOD, member("usr/file", b"other")), "holds usr/file twice"),
        ("lost link", (*GOOD, member("usr/x", kind=tarfile.LNKTYPE, target="usr/y")), "usr/x"),
        ("climbing link", (*GOOD, member("usr/x", kind=tarfile.LNKTYPE, target="../y")), "leads out"),
        ("long", (*GOOD, member("usr/" + "a/" * 2100 + "b", b"x")), "whose path is longer than any"),
        ("device", (*GOOD, member("usr/d", kind=tarfile.CHRTYPE)), "no file, folder or link: 'usr/d'"),
        ("pipe", (*GOOD, member("usr/d", kind=tarfile.FIFOTYPE)), "no file, folder or link: 'usr/d'"),
        ("no PKGINFO", GOOD[1:], "has no .PKGINFO"),
        ("no BUILDINFO", (GOOD[0], *GOOD[2:]), "has no .BUILDINFO"),
        ("no MTREE", (*GOOD[:2], *GOOD[3:]), "has no .MTREE"),
        ("garbage", (member(".PKGINFO", b"\0\1garbage"), *GOOD[1:]), "line 1 is not `key = value`"),
        ("binary", (member(".PKGINFO", b"\xff\xfe"), *GOOD[1:]), ".PKGINFO is not UTF-8"),
        ("no name", (member(".PKGINFO", b"pkgver = 1\n"), *GOOD[1:]), ".PKGINFO has no pkgname"),
        ("folder", (member(".PKGINFO", kind=tarfile.DIRTYPE), *GOOD[1:]), "has no .PKGINFO"),
        ("MTREE", (*GOOD[:2], member(".MTREE", b"plain"), *GOOD[3:]), ".MTREE is not gzip"),
        ("cut MTREE", (*GOOD[:2], member(".MTREE", gzip.compress(MTREE)[:-9]), *GOOD[3:]), "cut off"),
        (
            "bomb",
            (*GOOD[:2], member(".MTREE", gzip.compress(b"\0" * (65 << 20))), *GOOD[3:]),
            "cut off or too large",
        ),
    ],
)
def test_a_malformed_package_is_named(
    write: Callable[[bytes], Path], name: str, members: tuple[Member, ...], named: str
) -> None:
    """A package from a stranger must not reach further than this."""
    path = write(archive(members))
    with pytest.raises(PackageError) as caught:
        package.read(path)
    assert named in caught.value.message
    assert path.name in caught.value.message


def test_a_link_to_nothing_is_read(write: Callable[[bytes], Path]) -> None:
    """libarchive has no target for it then, not an empty one."""
    found = package.read(write(archive((*GOOD, member("usr/l", kind=tarfile.SYMTYPE)))))
    assert found.members["usr/l"].target == ""


def test_a_name_of_any_bytes_is_a_name(write: Callable[[bytes], Path]) -> None:
    """pacman takes it, so a check must be able to tell of it."""
    name = "usr/\udcff"
    assert package.read(write(archive((*GOOD, member(name, b"x"))))).members[name].content == b"x"


def test_a_hard_link_is_a_second_name(write: Callable[[bytes], Path]) -> None:
    """Packages hold them, and .MTREE describes both names as files."""
    found = package.read(write(archive((*GOOD, member("usr/x", kind=tarfile.LNKTYPE, target="usr/file")))))
    assert found.members["usr/x"].content == b"text"
    assert found.members["usr/x"].sha256 == found.members["usr/file"].sha256


def test_a_cut_or_missing_file_is_named(write: Callable[[bytes], Path], tmp_path: Path) -> None:
    """A download that broke off is the commonest damage of all."""
    path = write(archive())
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:size])
        with pytest.raises(PackageError, match=path.name):
            package.read(path)
    for other in (tmp_path / "nothing.pkg.tar.xz", tmp_path):
        with pytest.raises(PipelineError):
            package.read(other)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=8),
    raw=st.booleans(),
)
def test_damage_anywhere_is_a_package_or_an_error(
    write: Callable[[bytes], Path], changes: list[tuple[int, int]], raw: bool
) -> None:
    """A traceback on a hostile package is how holes are found."""
    data = bytearray(archive())
    path = write(bytes(data))
    if raw:
        data = bytearray(path.read_bytes())
    for place, byte in changes:
        data[place % len(data)] = byte
    if raw:
        path.write_bytes(data)
    else:
        write(bytes(data))
    try:
        package.read(path)
    except PackageError as e:
        str(e.message).encode()


@given(
    st.one_of(st.binary(), st.lists(st.sampled_from([*PKGINFO.split(b"\n"), b"x =", b"= y"])).map(b"\n".join))
)
def test_any_pkginfo_is_read_or_explained(data: bytes) -> None:
    """It is the first thing read of a stranger's package."""
    try:
        values = parse_key_values("p", ".PKGINFO", data)
    except PackageError:
        return
    assert all(values.values())


WORDS = [
    b"./a",
    b"./\\377",
    b"/set",
    b"/unset",
    b"type=file",
    b"type",
    b"mode=9",
    b"uid=\xd9\xa3",
    b"size=1_0",
    b"=",
]


@given(st.one_of(st.binary(), st.lists(st.sampled_from([*WORDS, b"\n", b" "])).map(b" ".join)))
@example(b"./a type=file mode=" + b"7" * 10000)
@example(b"./a type=file size=" + b"7" * 10000)
def test_any_mtree_is_read_or_explained(data: bytes) -> None:
    """It is inflated from a stranger's package."""
    try:
        parse_mtree("p", data)
    except PackageError as e:
        e.message.encode()


@given(st.text(), st.text())
def test_any_two_manifests_can_be_compared(one: str, two: str) -> None:
    """The manifest beside an unpacked image may be damaged as well."""
    assert tree.differences(one, one) == []
    assert tree.differences(one, two) == tree.differences(two, one)
    tree.manifest_sha256(one)
