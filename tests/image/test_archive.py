"""Databases and locks of Arch images: what is read of them comes from others."""

from __future__ import annotations

import contextlib
import io
import tarfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.image.archive import DatabaseError, Entry, parse_entry, read_database
from pipeline.image.definition import ArchDefinition, definition_sha256, read_definition
from pipeline.image.lock import ArchLock, LockedDatabase, LockedPackage, expand, parse_lock, render_lock

SUM = "a" * 64
# As repo-add of pacman 4.1 wrote it in 2013: more keys than are read, several values to some.
DESC = f"""%FILENAME%
lib32-c++-1:2.0-3-x86_64.pkg.tar.xz

%NAME%
lib32-c++

%VERSION%
1:2.0-3

%GROUPS%
devel
multilib-devel

%CSIZE%
123

%ISIZE%
456

%MD5SUM%
{"b" * 32}

%SHA256SUM%
{SUM}

%PGPSIG%
AAEC

%PROVIDES%
c++=2.0
"""
LINES = DESC.splitlines(keepends=True)


def test_a_package_of_a_database_is_read() -> None:
    """Or pacman and the lock would speak of different packages."""
    entry = parse_entry(DESC.encode(), "multilib")
    name, file = "lib32-c++", "lib32-c++-1:2.0-3-x86_64.pkg.tar.xz"
    assert entry == Entry("multilib", name, "1:2.0-3", file, 123, SUM, b"\0\1\2")
    assert entry.locked("good").signature == "good"


def test_the_places_of_a_package_follow_its_name() -> None:
    """Or half of the packages of 2013 would not be found where they have moved to."""
    package = parse_entry(DESC.encode(), "multilib").locked("good")
    template = "https://x.example/{repository}/{initial}/{name}/archlinux_pkg_{item}/{file}"
    place = "https://x.example/multilib/l/lib32-c++/archlinux_pkg_lib32-c__/"
    assert expand(template, package) == f"{place}{package.file}"


@pytest.mark.parametrize("key", ["FILENAME", "NAME", "VERSION", "CSIZE", "SHA256SUM"])
def test_what_a_package_lacks_is_named(key: str) -> None:
    with pytest.raises(DatabaseError, match=f"no {key}"):
        parse_entry(DESC.replace(f"%{key}%", "%OTHER%").encode(), "core")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("lib32-c++-1:2.0-3-x86_64.pkg.tar.xz", "../../etc/passwd"),
        ("%NAME%\nlib32-c++", "%NAME%\n../x"),
        ("%NAME%\nlib32-c++", "%NAME%\n-Syu"),
        ("123", "-1"),
        (SUM, "a" * 63),
    ],
)
def test_what_cannot_be_is_never_locked(before: str, after: str) -> None:
    """A database must not name a file outside the cache, nor an option of pacman."""
    with pytest.raises(DatabaseError):
        parse_entry(DESC.replace(before, after, 1).encode(), "core").locked("good")


@given(
    st.lists(st.one_of(st.sampled_from(LINES), st.text()), max_size=30).map("".join), st.binary(max_size=9)
)
def test_any_package_is_read_or_refused(text: str, rest: bytes) -> None:
    """The archive's answer must not end in a traceback."""
    with contextlib.suppress(DatabaseError):
        parse_entry(text.encode(errors="replace") + rest, "core").locked("good")


def database(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def test_a_database_is_read(tmp_path: Path) -> None:
    """Packages of the first years have a second file, ``depends``, which is not needed."""
    path = tmp_path / "core.db"
    path.write_bytes(database({"a/desc": DESC.encode(), "a/depends": b"%DEPENDS%\nglibc\n"}))
    assert list(read_database(path, "core")) == ["lib32-c++"]
    path.write_bytes(database({"a/desc": DESC.encode(), "b/desc": DESC.encode()}))
    with pytest.raises(DatabaseError, match="twice"):
        read_database(path, "core")
    path.write_bytes(database({"a/desc": b"x" * (2 << 20)}))
    with pytest.raises(DatabaseError, match="member of 2097152 bytes"):
        read_database(path, "core")


@given(st.binary(max_size=400), st.integers(0, 300))
def test_any_bytes_are_a_database_or_refused(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int
) -> None:
    """A page of a proxy in a database's place must not end in a traceback."""
    path = tmp_path_factory.getbasetemp() / "junk.db"
    good = database({"a/desc": DESC.encode()})
    for data in (junk, good[:at] + junk, good[:at]):
        path.write_bytes(data)
        with contextlib.suppress(DatabaseError):
            read_database(path, "core")


WORD = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/"), min_size=1, max_size=9
)


@given(st.lists(WORD, min_size=1, max_size=4, unique=True), st.integers(0, 400))
def test_a_lock_is_read_as_it_was_written_and_no_other_way(
    tmp_path_factory: pytest.TempPathFactory, versions: list[str], at: int
) -> None:
    """One byte changed by hand anywhere is noticed."""
    packages = tuple(
        LockedPackage(
            repository="core", name=f"p{number}", version=version, file=f"p{number}.pkg.tar.xz", size=1,
            sha256=SUM, signature="good",
        )
        for number, version in enumerate(versions)
    )  # fmt: skip
    database_ = LockedDatabase(repository="core", url="https://x.example/core.db", size=1, sha256=SUM)
    lock = ArchLock(
        definition_sha256=SUM, source_date_epoch=1, rootfs_sha256=SUM, tree_sha256=SUM,
        image_id=f"sha256:{SUM}", snapshot="2013-11-01", databases=(database_,),
        urls=("https://x.example/{file}",), packages=packages,
    )  # fmt: skip
    path = tmp_path_factory.getbasetemp() / "some.lock"
    path.write_text(render_lock(lock))
    assert parse_lock(path, arch=True) == lock
    text = path.read_text()
    at %= len(text)
    changed = chr(ord(text[at]) ^ 1) if text[at] != "\n" else " "
    path.write_text(text[:at] + changed + text[at + 1 :])
    with pytest.raises(UsageError):
        parse_lock(path, arch=True)


def test_the_shipped_definitions_can_be_read() -> None:
    """And what does not reach the image's bytes does not call for a new lock."""
    for name in ("arch", "arch-2013"):
        definition = read_definition(name)
        assert isinstance(definition, ArchDefinition)
        assert "multilib" in definition.repositories
        assert definition.way_out is not None
        same = msgspec.structs.replace(definition, proof={}, packaging=None, kernel_of=None, alternative=None)
        assert definition_sha256(same) == definition_sha256(definition)
        other = msgspec.structs.replace(definition, snapshot="2014-01-01")
        assert definition_sha256(other) != definition_sha256(definition)
