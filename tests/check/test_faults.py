"""Every finding that takes no engine, seen to fail: one fault in a package that is good but for it."""

from __future__ import annotations

import re
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.check import archive
from pipeline.check.checker import inspect
from pipeline.package import Package
from tests.check import planted
from tests.check.planted import EPOCH, Draft, Entry, folder, good, link, page, script

PYC = "__pycache__/a.cpython-311.pyc"
CHECK = Path(archive.__file__).parent


def findings(package: Package, work: Path, *others: Package, expected: tuple[str, ...] = ()) -> list[str]:
    """What is found, each as ``level code path``."""
    found = inspect(package, [package, *others], expected, work)
    return [f"{f.level} {f.code} {f.path}".rstrip() for f in found]


def pyc(mtime: int, size: int) -> Entry:
    """The header of byte code, as py_compile writes it."""
    return Entry(b"\xa7\r\r\n" + struct.pack("<III", 0, mtime, size) + b"code")


def pyc2(mtime: int) -> Entry:
    """The same for Python 2.7."""
    return Entry(b"\x03\xf3\r\n" + struct.pack("<I", mtime) + b"code code")


def info(**values: list[str]) -> Callable[[], Draft]:
    def make() -> Draft:
        draft = good()
        draft.info |= values
        return draft

    return make


def files(**more: Entry) -> Callable[[], Draft]:
    return lambda: good(**more)


def file(path: str, entry: Entry | None = None) -> Callable[[], Draft]:
    return lambda: good(**{path: entry or Entry(b"content")})


def install(text: str) -> Callable[[], Draft]:
    def make() -> Draft:
        draft = good()
        draft.install = text
        return draft

    return make


def lie(path: str, entry: Entry | None) -> Callable[[], Draft]:
    def make() -> Draft:
        draft = good()
        draft.lies[path] = entry
        return draft

    return make


def recorded(**values: str) -> Callable[[], Draft]:
    def make() -> Draft:
        draft = good()
        draft.build |= values
        return draft

    return make


def without(path: str) -> Callable[[], Draft]:
    def make() -> Draft:
        draft = good()
        del draft.files[path]
        return draft

    return make


def hard_link() -> Draft:
    return good(**{"var/small/x": Entry(kind=tarfile.LNKTYPE, target="usr/bin/small", mode=0o755)})


def mostly_docs() -> Draft:
    return good(**{"usr/share/doc/small/book": Entry(b"word " * 1000)})


CONF = Entry(b"answer=42\n")
FAULTS: dict[str, tuple[Callable[[], Draft], str]] = {
    "another name inside": (recorded(pkgname="other"), "error metadata .BUILDINFO"),
    "not in mtree": (lie("etc/small.conf", None), "error mtree etc/small.conf"),
    "only in mtree": (lie("etc/gone", CONF), "error mtree etc/gone"),
    "other content": (lie("etc/small.conf", Entry(b"answer=43\n")), "error mtree etc/small.conf"),
    "other mode": (lie("etc/small.conf", Entry(CONF.data, 0o600)), "error mtree etc/small.conf"),
    "other owner": (lie("etc/small.conf", Entry(CONF.data, uid=7)), "error mtree etc/small.conf"),
    "other kind": (lie("etc/small.conf", folder()), "error mtree etc/small.conf"),
    "local": (file("usr/local/x"), "error place usr/local/x"),
    "lib64": (file("lib64/x"), "error place lib64/x"),
    "init.d": (file("etc/init.d/x", script("#!/bin/bash\n")), "error place etc/init.d/x"),
    "temporary": (file("var/tmp/x"), "error place var/tmp/x"),
    "manual elsewhere": (file("usr/man/x"), "error place usr/man/x"),
    "owner": (file("usr/lib/small/x", Entry(b"1", uid=1000)), "error owner usr/lib/small/x"),
    "set-uid": (file("usr/bin/x", Entry(b"1", 0o4755)), "error set-id usr/bin/x"),
    "set-gid": (file("usr/bin/x", Entry(b"1", 0o2755)), "error set-id usr/bin/x"),
    "writable": (file("usr/lib/x", Entry(b"1", 0o646)), "error world-writable usr/lib/x"),
    "writable folder": (file("var/small", folder(0o777)), "error world-writable var/small"),
    "unreadable": (file("usr/lib/x", Entry(b"1", 0o640)), "warning unreadable usr/lib/x"),
    "build path": (file("usr/lib/x", Entry(b"at /build/src/x")), "error build-path usr/lib/x"),
    "zipped build path": (file("usr/lib/x.gz", page("at /build/src/x")), "error build-path usr/lib/x.gz"),
    "dangling": (file("usr/lib/x", link("nowhere")), "warning dangling-link usr/lib/x"),
    "hard link": (hard_link, "error hard-link var/small/x"),
    "backup of nothing": (info(backup=["etc/small.conf", "etc/no"]), "error backup etc/no"),
    "not in backup": (file("etc/other.conf"), "warning not-in-backup etc/other.conf"),
    "name": (file("usr/lib/\u00e4"), "warning file-name usr/lib/\u00e4"),
    "empty folder": (file("usr/lib/x", folder()), "warning empty-folder usr/lib/x"),
    "libtool": (file("usr/lib/x.la"), "error libtool usr/lib/x.la"),
    "static": (file("usr/lib/x.a"), "warning static-library usr/lib/x.a"),
    "perllocal": (file("usr/lib/perl5/perllocal.pod"), "error leftover usr/lib/perl5/perllocal.pod"),
    "info dir": (file("usr/share/info/dir"), "error leftover usr/share/info/dir"),
    "no licence": (info(license=[]), "error licence .PKGINFO"),
    "no such licence": (info(license=["GPL-2"]), "error licence .PKGINFO"),
    "licence text": (info(license=["MIT"]), "error licence usr/share/licenses/small/"),
    "desktop": (
        file("usr/share/applications/x.desktop", Entry(b"[Desktop Entry]\nType=Application\nName=x\n")),
        "error desktop usr/share/applications/x.desktop",
    ),
    "no desktop entry": (
        file("usr/share/applications/x.desktop"),
        "error desktop usr/share/applications/x.desktop",
    ),
    "capitals": (info(pkgname=["Small"]), "error description .PKGINFO"),
    "no description": (info(pkgdesc=[]), "warning description .PKGINFO"),
    "its own name": (info(pkgdesc=["The small package"]), "warning description .PKGINFO"),
    "no url": (info(url=[]), "warning description .PKGINFO"),
    "hook": (install("post_install() {\n  /usr/bin/systemctl daemon-reload\n}\n"), "warning hook .INSTALL"),
    "docs": (mostly_docs, "warning lots-of-docs"),
    "stale byte code": (
        files(**{"usr/lib/x/a.py": Entry(b"x = 1\n"), f"usr/lib/x/{PYC}": pyc(EPOCH, 7)}),
        f"warning byte-code usr/lib/x/{PYC}",
    ),
    "stale byte code of Python 2": (
        files(**{"usr/lib/x/a.py": Entry(b"x = 1\n"), "usr/lib/x/a.pyc": pyc2(EPOCH + 1)}),
        "warning byte-code usr/lib/x/a.pyc",
    ),
    "byte code of nothing": (
        file("usr/lib/x/__pycache__/a.cpython-311.pyc", pyc(EPOCH, 6)),
        "warning byte-code usr/lib/x/__pycache__/a.cpython-311.pyc",
    ),
    "missing": (without("usr/share/man/man1/small.1.gz"), "error missing usr/share/man/man1/small.1"),
    "empty": (file("usr/share/man/man1/small.1", Entry()), "error missing usr/share/man/man1/small.1"),
    "interpreter": (file("usr/bin/x", script("#!/usr/bin/perl\n")), "error depends usr/bin/x"),
    "unknown": (file("usr/bin/x", script("#!/usr/bin/env ruby\n")), "error unknown-need usr/bin/x"),
    "unused": (info(depend=["bash", "lzo"]), "warning unused-depends lzo"),
    "untitled": (file("usr/share/man/man1/x.1.gz", page("no")), "error man usr/share/man/man1/x.1.gz"),
    "broken page": (
        file("usr/share/man/man1/x.1.gz", page(".TH X 1\n.SH NAME\n.TS\nbroken")),
        "error man usr/share/man/man1/x.1.gz",
    ),
    "misplaced page": (
        file("usr/share/man/man8/x.1.gz", page(planted.PAGE)), "error man usr/share/man/man8/x.1.gz",
    ),
    "plain page": (
        file("usr/share/man/man1/x.1", Entry(planted.PAGE.encode())), "error man usr/share/man/man1/x.1",
    ),
    "damaged": (file("usr/lib/x", Entry(b"\x7fELFgarbage")), "error damaged-elf usr/lib/x"),
}  # fmt: skip
EXPECTED = ("usr/bin/small", "usr/share/man/man1/small.1")
SAID_TOO = {"empty": {"error man usr/share/man/man1/small.1"}}
"""A page that is empty is no page either."""


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_is_one_finding(fault: str, tmp_path: Path) -> None:
    """Nothing else is said, so that no other fault can have been what the check saw."""
    make, wanted = FAULTS[fault]
    found = findings(make().write(tmp_path), tmp_path, expected=EXPECTED)
    assert set(found) == {wanted} | SAID_TOO.get(fault, set())


def test_a_package_without_a_fault(tmp_path: Path) -> None:
    """Or people would learn to look away; what is allowed is here, too."""
    draft = good(
        **{
            "usr/lib/small/again": link("../../bin/small"),
            "usr/lib/small/x.py": Entry(b"x = 1\n"),
            "usr/lib/small/__pycache__/x.cpython-311.pyc": pyc(EPOCH, 6),
            "usr/lib/small/y.py": Entry(b"y = 1\n"),
            "usr/lib/small/y.pyc": pyc2(EPOCH),
            "usr/bin/smaller": Entry(kind=tarfile.LNKTYPE, target="usr/bin/small", mode=0o755),
            "var/lib/small": folder(0o700),
            "var/spool/small": folder(0o1777),
            "usr/share/licenses/small/LICENSE": Entry(b"free\n"),
        }
    )
    draft.info["license"] = ["GPL-2.0-only", "LicenseRef-small", "MIT OR Apache-2.0"]
    assert findings(draft.write(tmp_path), tmp_path, expected=EXPECTED) == []


def test_the_name_of_the_file(tmp_path: Path) -> None:
    """pacman's cache and repo-add go by it."""
    package = good().write(tmp_path, "smaller-1.0-1-any.pkg.tar.xz")
    assert findings(package, tmp_path) == ["error metadata smaller-1.0-1-any.pkg.tar.xz"]


def test_faults_of_several_packages(tmp_path: Path) -> None:
    """pacman would refuse to install them together, or find one of them missing."""
    docs = good()
    docs.info["pkgname"] = ["small-docs"]
    packages = [good().write(tmp_path), docs.write(tmp_path)]
    shared = {f"{f.level} {f.code} {f.package} {f.path}" for f in archive.shared_files(packages)}
    assert shared == {f"error conflict small-docs {path}" for path in good().files}
    missing = archive.missing_packages(packages, {"small": (), "small-docs": (), "small-more": ()})
    assert [f"{f.level} {f.code} {f.package}" for f in missing] == ["error missing small-more"]


def codes(*tests: str) -> set[str]:
    """The codes that tests expect, read from their text."""
    text = "".join(Path(__file__).with_name(name).read_text() for name in tests)
    return set(re.findall(r"\b(?:error|warning) ([a-z-]+)\b", text))


def test_every_code_is_seen_to_fail_and_explained() -> None:
    """A check that nothing has ever broken may check nothing."""
    made = {
        *re.findall(
            r"\b(?:error|warning)\(\s*\"([a-z-]+)\"", "".join(p.read_text() for p in CHECK.glob("*.py"))
        ),
        *re.findall(r"printf '([a-z-]+)\\t", (CHECK / "verify.sh").read_text()),
    }
    assert len(made) > 30
    tests = codes(*(path.name for path in Path(__file__).parent.glob("test_*.py")))
    assert made - tests == set()
    page = (CHECK.parents[1] / "docs" / "checking.md").read_text()
    assert {code for code in made if f"`{code}`" not in page} == set()
