"""Builds of a branch with ccache: the same bytes, sooner; and releases without it."""

from __future__ import annotations

import dataclasses
import tarfile
from pathlib import Path

import filelock
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import ccache
from pipeline.build import BuildRecord
from pipeline.ccache import Use
from pipeline.image import assembly
from pipeline.image.assembly import Image
from pipeline.mirrors import Mirrors
from tests import checkouts, small
from tests.checkouts import Checkout
from tests.conftest import store
from tests.repositories import Repository
from tests.small import Small

RELEASE = """
branch = "main"

[[git]]
name = "small-1.0"
urls = ["{url}"]
commit = "{commit}"
"""


def test_the_log_of_a_job_is_counted(tmp_path: Path) -> None:
    """As ccache writes it: a heading a file, then what became of it, among other counters."""
    log = tmp_path / "log"
    log.write_text(
        "# a.c\ndirect_cache_hit\nlocal_storage_hit\n# b.c\ncache_miss\n# c.c\npreprocessed_cache_hit\n"
    )
    assert ccache.read(log) == Use(hits=2, misses=1)
    assert str(ccache.read(log)) == "ccache had 2 of 3 compiled files"
    assert ccache.read(tmp_path / "none").share == 0


@given(st.binary())
def test_any_log_can_be_read(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """It comes from a build, which may write what it likes."""
    log = tmp_path_factory.getbasetemp() / "any.log"
    log.write_bytes(data)
    assert 0 <= ccache.read(log).share <= 1


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """The small package's source as a repository."""
    made = Repository.make(tmp_path / "upstream")
    archive = tmp_path / "small.tar.gz"
    archive.write_bytes(small.archive(str(tmp_path)))
    with tarfile.open(archive) as tar:
        made.commit(
            {m.name.partition("/")[2]: file.read() for m in tar if (file := tar.extractfile(m)) is not None}
        )
    return made


def follow(checkout: Checkout, source: Small, repository: Repository) -> None:
    """Let the small release follow a branch, as unstable does."""
    source.write(checkout.root)
    path = checkout.root / "releases" / "small.toml"
    head, _, rest = path.read_text().partition("[[sources]]")
    text = RELEASE.format(url=repository.url, commit=repository.git("rev-parse", "HEAD"))
    path.write_text(head + text + "[tokens]" + rest.partition("[tokens]")[2])


def record(checkout: Checkout) -> BuildRecord:
    return msgspec.json.decode((checkout.latest / "build.json").read_bytes(), type=BuildRecord)


@pytest.mark.integration
def test_releases_are_not_built_with_it(checkout: Checkout) -> None:
    """What is published as a release must come from its sources alone."""
    failed = checkout.run("build", "small", "--ccache").failed(2)
    assert "Release small is not built with ccache" in failed.err


@pytest.mark.integration
def test_an_image_without_it(checkout: Checkout, source: Small, repository: Repository) -> None:
    """A night that silently compiles everything is an hour late for no visible reason."""
    follow(checkout, source, repository)
    failed = checkout.run("build", "small", "--ccache").failed(2)
    assert "Image debian-bookworm has no ccache." in failed.err
    own = checkout.root / "own.yaml"
    own.write_text("pipeline: {release: small, nightly: {ccache: 0}}\n")
    checkout.run("-f", str(own), "build", "small", "--ccache").fine()
    assert record(checkout).ccache is None


@pytest.fixture(scope="session")
def trixie(shared_folder: Path) -> Image:
    """The image of nights, which has ccache."""
    with filelock.FileLock(shared_folder / "trixie.lock"):
        return assembly.prepare("debian-trixie", store(), Mirrors())


@pytest.mark.integration
def test_a_cached_compile_gives_the_same_bytes(
    trixie: Image, tmp_path: Path, source: Small, repository: Repository, docker_env: dict[str, str]
) -> None:
    """One that does not would be found by somebody who rebuilds, and never trusts a package again."""
    root = checkouts.copy(tmp_path / "a copy für sich")
    found = checkouts.private_store(tmp_path / "store", trixie.store.root, trixie.lock.rootfs_sha256)
    one = Checkout(root, found)
    follow(one, dataclasses.replace(source, image="debian-trixie"), repository)
    one.run("build", "small", "--ccache").fine()
    assert record(one).ccache == Use(hits=0, misses=1)
    cached = one.packages()
    for note in (found / "compiled").iterdir():
        note.unlink()
    one.run("build", "small").fine()
    assert (record(one).ccache, one.packages()) == (None, cached)
    # Another night: nothing that is compiled has changed.
    for how in ({}, docker_env, docker_env):
        repository.commit({"README": str(how).encode()})
        follow(one, dataclasses.replace(source, image="debian-trixie"), repository)
        one.run("build", "small", "--ccache", env=how).fine()
    assert record(one).engine == "docker"
    assert record(one).ccache == Use(hits=1, misses=0)
