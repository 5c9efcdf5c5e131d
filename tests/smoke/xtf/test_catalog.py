"""What xtf-runner would run of a folder, by its own rules; and what a folder from outside must not do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.smoke.xtf import catalog
from pipeline.smoke.xtf.catalog import Catalog, Instance
from tests.smoke.xtf.framework import write_test


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    xtf = tmp_path / "xtf"
    write_test(xtf, "example", category="special", environments=("pv64", "hvm32"))
    write_test(xtf, "invlpg", environments=("hvm64", "hvm32"), variations=("shadow", "hap"))
    write_test(xtf, "pv-iopl", environments=("pv64", "pv32pae"), variations=("hypercall", "vmassist"))
    write_test(xtf, "xsa-122", category="xsa", environments=("pv64", "pv32pae", "hvm64"))
    write_test(xtf, "cpuid", category="utility", environments=("pv64", "hvm64"))
    return xtf


DEFAULT = [
    "test-hvm32-invlpg~hap",
    "test-hvm32-invlpg~shadow",
    "test-hvm64-invlpg~hap",
    "test-hvm64-invlpg~shadow",
    "test-pv32pae-pv-iopl~hypercall",
    "test-pv32pae-pv-iopl~vmassist",
    "test-pv64-pv-iopl~hypercall",
    "test-pv64-pv-iopl~vmassist",
    "test-hvm64-xsa-122",
    "test-pv32pae-xsa-122",
    "test-pv64-xsa-122",
]


@pytest.mark.parametrize(
    ("words", "tests"),
    [
        ("", DEFAULT),
        ("functional xsa", DEFAULT),
        ("xsa", [test for test in DEFAULT if "xsa" in test]),
        ("xsa hvm", ["test-hvm64-xsa-122"]),
        ("pv64", [test for test in DEFAULT if "pv64" in test]),
        ("special", ["test-hvm32-example", "test-pv64-example"]),
        ("example", ["test-hvm32-example", "test-pv64-example"]),
        ("example pv64", ["test-pv64-example"]),
        ("example functional", []),
        ("pv64-xsa-122 test-hvm64-invlpg~hap", ["test-hvm64-invlpg~hap", "test-pv64-xsa-122"]),
        ("pv-iopl~vmassist", ["test-pv32pae-pv-iopl~vmassist", "test-pv64-pv-iopl~vmassist"]),
        ("hvm64 utility", ["test-hvm64-cpuid"]),
        # Nothing is in that category: as if it had not been said, but others than the default count.
        ("in-development hvm32", ["test-hvm32-example", "test-hvm32-invlpg~hap", "test-hvm32-invlpg~shadow"]),
    ],
)
def test_words_choose_what_the_runner_would(folder: Path, words: str, tests: list[str]) -> None:
    """If this fails, other tests run here than with xtf-runner."""
    assert [str(instance) for instance in Catalog.read(folder).select(words.split())] == tests


@pytest.mark.parametrize(
    "word", ["nothing", "pv64-nothing", "hvm64-pv-iopl", "pv-iopl~none", "xsa-122~hap", "", "test-pv64-", "~"]
)
def test_a_word_that_means_nothing_is_wrong_use(folder: Path, word: str) -> None:
    """If this fails, a typing error runs no test, and that looks like success."""
    with pytest.raises(UsageError):
        Catalog.read(folder).select([word])


def test_capabilities_that_a_test_needs() -> None:
    """If this fails, tests run on a Xen that cannot run them, and count as crashed."""
    needs = {
        Instance("x", "pv64"): {"pv"},
        Instance("x", "pv32pae"): {"pv", "pv32"},
        Instance("x", "hvm32"): {"hvm"},
        Instance("x", "hvm64", "hap"): {"hvm", "hap"},
        Instance("x", "hvm64", "shadow"): {"hvm", "shadow"},
        Instance("x", "pv64", "vmassist"): {"pv"},
    }
    assert {instance: set(instance.needs) for instance in needs} == needs


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"name": "other"}, "about the test 'other'"),
        ({"category": "fun"}, "no category 'fun'"),
        ({"environments": ["pv64", "arm64"]}, "no environment 'arm64'"),
        ({"environments": []}, "length >= 1"),
        ({"environments": "pv64"}, "array"),
        ({"variations": ["../x"]}, "no name for a file"),
        ({"variations": [1]}, "Expected `str`"),
        ({"category": None}, "Expected `str`"),
    ],
)
def test_bad_info_is_left_out_and_told(folder: Path, change: dict[str, object], what: str) -> None:
    """If this fails, a test is lost without a word, or one bad file loses all."""
    path = folder / "tests/xsa-122/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    found = Catalog.read(folder)
    assert "xsa-122" not in found.tests
    assert what in found.unread["xsa-122"]
    assert len(found.tests) == 4


def test_folders_without_info_are_no_tests(folder: Path) -> None:
    """If this fails, objects that a build leaves there are reported as damaged tests."""
    (folder / "tests/README").write_text("")
    (folder / "tests/empty").mkdir()
    assert Catalog.read(folder).unread.keys() <= {"README"}
    assert len(Catalog.read(folder).tests) == 5


def test_nothing_outside_of_the_folder_is_read(folder: Path) -> None:
    """If this fails, a link in a downloaded framework brings this host's files into a guest."""
    (folder.parent / "secret").write_text(json.dumps({"name": "leak"}))
    for name, target in (("link", "../../../secret"), ("loop", "info.json")):
        (folder / "tests" / name).mkdir()
        (folder / "tests" / name / "info.json").symlink_to(target)
    found = Catalog.read(folder)
    assert "leads out" in found.unread["link"]
    assert "loop" in found.unread
    kernel = folder / "tests/xsa-122/test-pv64-xsa-122"
    kernel.unlink()
    kernel.symlink_to(folder.parent / "secret")
    with pytest.raises(ValueError, match="leads out"):
        found.file("xsa-122", "test-pv64-xsa-122")
    with pytest.raises((ValueError, OSError)):
        found.file("xsa-122", "../../../secret")


def test_files_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a large file in a framework fills this host's memory."""
    path = folder / "tests/xsa-122/info.json"
    path.write_text(" " * (catalog.MAX_INFO + 1))
    found = Catalog.read(folder)
    assert "larger than" in found.unread["xsa-122"]
    monkeypatch.setattr(catalog, "MAX_FILE", 3)
    (folder / "tests/cpuid/test-pv64-cpuid").write_bytes(b"four")
    with pytest.raises(ValueError, match="larger than 3"):
        found.file("cpuid", "test-pv64-cpuid")


@pytest.mark.parametrize("make", [False, True])
def test_a_folder_without_tests_is_wrong_use(tmp_path: Path, make: bool) -> None:
    """If this fails, a framework that was never built passes."""
    if make:
        (tmp_path / "tests").mkdir()
    with pytest.raises(UsageError):
        Catalog.read(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.one_of(st.binary(), st.recursive(st.none() | st.text(), st.lists).map(json.dumps).map(str.encode)))
def test_no_info_breaks_the_reading(folder: Path, data: bytes) -> None:
    """If this fails, some info.json ends the command with a traceback."""
    (folder / "tests/xsa-122/info.json").write_bytes(data)
    found = Catalog.read(folder)
    assert "xsa-122" in found.unread
    (folder / "tests/xsa-122/info.json").write_text("[" * 5000)
    assert "xsa-122" in Catalog.read(folder).unread
