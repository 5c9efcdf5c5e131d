from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.build import Build
from pipeline.errors import FailureError, HostError, IntegrityError, UsageError
from pipeline.evidence import Kind, UnprovenError
from pipeline.repository.channel import Channel, Index, Place
from pipeline.repository.publish import Policy, RefusedError, offers, publish
from pipeline.repository.sync import sync
from pipeline.signing import Status, keyring
from tests import builds, keys
from tests.keys import Key

NO_GRACE = Policy(grace=timedelta(0), keep=2)


@pytest.fixture(scope="module")
def key() -> Iterator[Key]:
    with keys.some() as some:
        yield some["mine"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "repo", Channel.STABLE)


def put(
    place: Place,
    folder: Path,
    version: str = "1.0-1",
    policy: Policy = NO_GRACE,
    *,
    contents: dict[str, bytes] | None = None,
    proven: tuple[Kind, ...] = tuple(Kind),
    unproven: bool = False,
) -> Index:
    """Publish a build of a version."""
    build = builds.make(folder, version=version, contents=contents, proven=proven)
    hashes = {path: build.hashes[path.name] for path in build.packages}
    return publish(place, offers(hashes, build.folder, unproven=unproven), policy)


def there(place: Place) -> set[str]:
    return {path.name for path in place.folder.glob("*.pkg.tar.xz")}


def test_every_package_of_the_database_is_there(place: Place, tmp_path: Path) -> None:
    index = put(place, tmp_path / "build")
    assert there(place) == {"small-1.0-1-any.pkg.tar.xz", "small-docs-1.0-1-any.pkg.tar.xz"}
    assert set(index.offered) == {"small", "small-docs"}
    assert (place.folder / "xen-stable.db").resolve().parent.name == "1"
    assert {path.stat().st_mode & 0o777 for path in place.folder.glob("*.pkg.tar.xz")} == {0o644}


def test_the_same_packages_again_change_nothing(place: Place, tmp_path: Path) -> None:
    assert put(place, tmp_path / "1") == put(place, tmp_path / "2")


def test_an_older_version_is_refused_as_pacman_orders_them(place: Place, tmp_path: Path) -> None:
    put(place, tmp_path / "1", "1.10-1")
    with pytest.raises(RefusedError, match=r"1\.9-1 is older"):
        put(place, tmp_path / "2", "1.9-1")
    put(place, tmp_path / "3", "1:1.0-1")
    with pytest.raises(RefusedError, match=r"1\.11-1 is older"):
        put(place, tmp_path / "4", "1.11-1")


def test_other_bytes_under_a_version_that_was_published_are_refused(place: Place, tmp_path: Path) -> None:
    put(place, tmp_path / "1")
    before = (place.folder / "small-1.0-1-any.pkg.tar.xz").read_bytes()
    with pytest.raises(RefusedError, match="with other bytes"):
        put(place, tmp_path / "2", contents={"usr/other": b"x"})
    assert (place.folder / "small-1.0-1-any.pkg.tar.xz").read_bytes() == before


@pytest.mark.parametrize("missing", Kind)
def test_only_proven_packages_are_published(place: Place, tmp_path: Path, missing: Kind) -> None:
    with pytest.raises(UnprovenError, match=f"no evidence of {missing}"):
        put(place, tmp_path / "1", proven=tuple(kind for kind in Kind if kind != missing))
    assert place.read() is None


def test_packages_without_evidence_are_marked_until_they_have_it(place: Place, tmp_path: Path) -> None:
    index = put(place, tmp_path / "1", proven=(), unproven=True)
    assert all(package.unproven for package in index.packages)
    index = put(place, tmp_path / "2")
    assert not any(package.unproven for package in index.packages)
    # And bytes that were proven stay so.
    index = put(place, tmp_path / "3", proven=(), unproven=True)
    assert not any(package.unproven for package in index.packages)


def test_a_package_that_changed_after_it_was_looked_at_is_refused(place: Place, tmp_path: Path) -> None:
    build = builds.make(tmp_path / "1")
    hashes = {path: build.hashes[path.name] for path in build.packages}
    looked_at = offers(hashes, build.folder, unproven=False)
    build.packages[0].write_bytes(build.packages[0].read_bytes() + b"\0")
    with pytest.raises(IntegrityError, match="has changed"):
        publish(place, looked_at, NO_GRACE)
    assert place.read() is None
    assert not there(place)


def test_a_damaged_package_in_the_folder_is_replaced(place: Place, tmp_path: Path) -> None:
    put(place, tmp_path / "1")
    path = place.folder / "small-1.0-1-any.pkg.tar.xz"
    good = path.read_bytes()
    path.write_bytes(b"bad")
    put(place, tmp_path / "2")
    assert path.read_bytes() == good


def test_old_versions_stay_for_a_time_and_the_last_ones_for_good(place: Place, tmp_path: Path) -> None:
    for n in range(1, 6):
        put(place, tmp_path / f"{n}", f"{n}-1", Policy(keep=2))
    assert len(there(place)) == 10  # a client may still be fetching any of them
    put(place, tmp_path / "6", "6-1", NO_GRACE)
    assert there(place) == {f"small{d}-{n}-1-any.pkg.tar.xz" for n in (5, 6) for d in ("", "-docs")}
    generations = {path.name for path in (place.folder / "generations").iterdir()}
    assert "6" in generations
    assert "1" not in generations


def test_the_time_counts_from_when_a_package_went_out_of_use(place: Place, tmp_path: Path) -> None:
    policy = Policy(keep=1, grace=timedelta(seconds=2))
    put(place, tmp_path / "1", "1-1", policy)
    time.sleep(2.2)
    put(place, tmp_path / "2", "2-1", policy)
    assert "small-1-1-any.pkg.tar.xz" in there(place)
    assert (place.folder / "generations" / "1").is_dir()
    time.sleep(3.2)  # the record has whole seconds
    put(place, tmp_path / "3", "3-1", policy)
    assert "small-1-1-any.pkg.tar.xz" not in there(place)
    assert not (place.folder / "generations" / "1").exists()


def test_a_later_database_is_newer_by_a_second_at_least(place: Place, tmp_path: Path) -> None:
    """Clients ask for what is newer than theirs, in whole seconds."""
    times = []
    for n in range(1, 4):
        put(place, tmp_path / f"{n}", f"{n}-1")
        times.append(int((place.folder / "xen-stable.db").stat().st_mtime))
    assert sorted(set(times)) == times


def test_two_publishers_at_once_lose_nothing(place: Place, tmp_path: Path) -> None:
    made = [builds.make(tmp_path / f"{n}", names=[f"small{n}"]) for n in range(8)]
    errors = []

    def work(build: Build) -> None:
        try:
            hashes = {path: build.hashes[path.name] for path in build.packages}
            publish(place, offers(hashes, build.folder, unproven=False), NO_GRACE)
        except Exception as e:
            errors.append(e)

    threads = [threading.Thread(target=work, args=(build,)) for build in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    index = place.read()
    assert index is not None
    assert (index.generation, len(index.offered)) == (8, 8)


def test_everything_is_signed_by_the_key(
    place: Place, tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNUPGHOME", str(key.home))
    put(place, tmp_path / "1")  # before there was a key
    put(place, tmp_path / "2", policy=Policy(key.fingerprint))
    with keyring(key.file) as ring:
        for path in [
            *place.folder.glob("*.pkg.tar.xz"),
            *place.folder.glob("*.db"),
            *place.folder.glob("*.files"),
        ]:
            assert ring.verify(path, path.with_name(f"{path.name}.sig")).status is Status.GOOD
    signed = (place.folder / "small-1.0-1-any.pkg.tar.xz.sig").read_bytes()
    assert put(place, tmp_path / "3", policy=Policy(key.fingerprint)).generation == 2
    assert (place.folder / "small-1.0-1-any.pkg.tar.xz.sig").read_bytes() == signed


def test_a_publisher_killed_before_its_switch_harms_nobody(place: Place, tmp_path: Path) -> None:
    put(place, tmp_path / "1", "1-1")
    (place.folder / "generations" / "2").mkdir()
    (place.folder / "generations" / "2" / "rubbish").touch()
    index = put(place, tmp_path / "2", "2-1")
    assert index.generation == 2
    assert not (place.folder / "current" / "rubbish").exists()


def test_an_unknown_channel_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no channel"):
        Channel.parse("../etc")


def test_a_repository_is_brought_elsewhere_and_nothing_goes_too_early(place: Place, tmp_path: Path) -> None:
    target = tmp_path / "srv" / "repo"
    put(place, tmp_path / "1", "1-1")
    sync(place, str(target))
    other = Place(target, Channel.STABLE)
    assert other.read() == place.read()
    assert there(other) == there(place)
    keep_one = Policy(keep=1, grace=timedelta(0))
    put(place, tmp_path / "2", "2-1", keep_one)
    put(place, tmp_path / "3", "3-1", keep_one)
    assert "small-1-1-any.pkg.tar.xz" not in there(place)
    sync(place, str(target))
    # A client there may have read the old database just now.
    assert "small-1-1-any.pkg.tar.xz" in there(other)
    assert (target / "stable/x86_64/generations/1").is_dir()
    sync(place, str(target))
    assert there(other) == there(place)
    assert os.readlink(target / "stable/x86_64/current") == "generations/3"


def test_what_somebody_else_published_elsewhere_is_not_overwritten(place: Place, tmp_path: Path) -> None:
    other = Place(tmp_path / "other", Channel.STABLE)
    put(other, tmp_path / "1", "1-1")
    put(other, tmp_path / "2", "2-1")
    put(place, tmp_path / "3", "1-1")
    with pytest.raises(FailureError, match="newer generation"):
        sync(place, str(other.root))


def test_a_target_that_does_not_answer_is_the_hosts_failure(place: Place, tmp_path: Path) -> None:
    put(place, tmp_path / "1", "1-1")
    with pytest.raises(HostError, match="cannot be reached"):
        sync(place, "nobody@127.0.0.1.invalid:/srv/repo")
    with pytest.raises(UsageError, match="not a place"):
        sync(place, "--rsh=evil")
