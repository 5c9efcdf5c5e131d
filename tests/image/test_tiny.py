"""Images made for real: locked, assembled, unpacked, damaged, killed, loaded."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pipeline.image.lock import parse_lock, render_lock
from pipeline.image.oci import DockerImage
from tests import checkouts
from tests.checkouts import Checkout, running_in
from tests.conftest import Tiny

pytestmark = pytest.mark.integration


@pytest.fixture
def copy(tiny: Tiny, tmp_path: Path) -> Iterator[Checkout]:
    """A checkout with the tiny image's lock, and a store that has its packages but not the image."""
    checkout = Checkout(checkouts.copy(tmp_path / "copy"), tmp_path / "store")
    for suffix in ("toml", "lock"):
        name = f"containers/tiny.{suffix}"
        shutil.copy(tiny.checkout.root / name, checkout.root / name)
    wanted = [package.sha256 for package in tiny.image.lock.packages]
    for sha256 in wanted:
        link(tiny, checkout, sha256)
    yield checkout
    shutil.rmtree(checkout.store)


def link(tiny: Tiny, checkout: Checkout, sha256: str) -> None:
    checkouts.borrow(tiny.checkout.store, checkout.store, sha256)


def edit_lock(checkout: Checkout, **changes: object) -> None:
    path = checkout.root / "containers" / "tiny.lock"
    path.write_text(render_lock(msgspec.structs.replace(parse_lock(path, arch=False), **changes)))


def elsewhere() -> list[str]:
    """A program that makes another host of this one: its name, its umask."""
    if os.geteuid() == 0:
        return ["unshare", "--uts", "sh", "-c", 'hostname elsewhere; umask 0077; exec "$0" "$@"']
    return ["sh", "-c", 'umask 0077; exec "$0" "$@"']


def test_every_host_assembles_the_same_bytes_and_no_others(tiny: Tiny, copy: Checkout) -> None:
    """Otherwise two maintainers build in different images, and neither is the locked one."""
    image_id = DockerImage("0" * 64, tiny.image.lock.source_date_epoch).id
    edit_lock(copy, rootfs_sha256="0" * 64, image_id=image_id)
    private = copy.store.parent / "private"
    private.mkdir(mode=0o700)
    environment = {"TZ": "Asia/Kolkata", "LC_ALL": "C", "LANG": "de_DE.UTF-8", "HOME": "/nowhere"}
    environment["TMPDIR"] = str(private)
    err = copy.run("image", "tiny", env=environment, prefix=elsewhere()).failed(3).err
    assert "came out differently from its lock" in err
    assert f"has the SHA-256 {tiny.image.lock.rootfs_sha256}" in err
    assert list((copy.store / "scratch").iterdir()) == []
    assert list((copy.store / "images").glob("[0-9a-f]*/")) == []


def test_a_lock_of_another_definition_is_refused(copy: Checkout) -> None:
    """Somebody who adds a package to an image and forgets the lock would build without it."""
    path = copy.root / "containers" / "tiny.toml"
    path.write_text(path.read_text().replace('"busybox-static"', '"busybox-static", "gcc"'))
    assert "tiny.toml has changed" in copy.run("image", "tiny").failed(2).err
    (copy.root / "containers" / "tiny.lock").unlink()
    err = copy.run("image", "tiny", "--locked").failed(2).err
    assert "has no lock" in err
    assert "image.lock tiny" in err
    assert "has no lock" in copy.run("image", "tiny", env={"CI": "true"}).failed(2).err


def test_a_lock_with_another_package_hash_is_caught(tiny: Tiny, copy: Checkout) -> None:
    """An edited lock must not smuggle another package in."""
    first, *others = tiny.image.lock.packages
    forged = msgspec.structs.replace(first, sha256="0" * 64)
    edit_lock(copy, packages=(forged, *others))
    assert first.name in copy.run("image", "tiny").failed(3).err


def test_a_lock_with_another_tree_hash_is_caught(tiny: Tiny, copy: Checkout) -> None:
    """What is unpacked must be what the lock says, whichever of its hashes was edited."""
    link(tiny, copy, tiny.image.lock.rootfs_sha256)
    edit_lock(copy, tree_sha256="0" * 64)
    assert "did not unpack to the files of its lock" in copy.run("image", "tiny").failed(3).err
    assert not (copy.store / "images" / tiny.image.lock.rootfs_sha256).exists()


def test_a_changed_file_is_named_and_healed(tiny: Tiny, copy: Checkout) -> None:
    """A damaged compiler in the image would go unnoticed into every package."""
    link(tiny, copy, tiny.image.lock.rootfs_sha256)
    copy.run("image", "tiny", prefix=elsewhere()).fine()
    root = copy.store / "images" / tiny.image.lock.rootfs_sha256 / "root"
    data = bytearray((root / "bin" / "bash").read_bytes())
    data[len(data) // 2] ^= 1
    (root / "bin" / "bash").write_bytes(data)
    (root / "etc" / "new").touch()
    err = copy.run("image", "tiny").failed(3).err
    assert "/bin/bash" in err
    assert "/etc/new" in err
    copy.run("image", "tiny").fine()
    (root.parent / "manifest").unlink()
    shutil.rmtree(root / "usr")
    assert "was damaged" in copy.run("image", "tiny").failed(3).err
    assert not root.exists()


def test_a_kill_leaves_nothing_in_the_way(tiny: Tiny, copy: Checkout) -> None:
    """A power cut while the image is unpacked must not leave half an image in use."""
    link(tiny, copy, tiny.image.lock.rootfs_sha256)
    chance = random.Random(7)
    for moment in (chance.uniform(0.5, 1.5), chance.uniform(1.5, 3)):
        with copy.popen("image", "tiny") as process:
            time.sleep(moment)
            process.kill()
            process.communicate()
        time.sleep(0.3)
        assert running_in(copy.store) == []
    assert tiny.image.id in copy.run("image", "tiny").fine().out
    assert list((copy.store / "scratch").iterdir()) == []


def left_below_tmp() -> set[str]:
    """What mmdebstrap has there: its mounts, and its folders with something in them."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    folders = [path for path in Path(tempfile.gettempdir()).glob("mmdebstrap*") if any(path.iterdir())]
    return {line.split()[1] for line in mounts if "mmdebstrap" in line} | {str(path) for path in folders}


@pytest.mark.skipif(os.geteuid() != 0, reason="mmdebstrap keeps its own house for other users")
def test_a_killed_mmdebstrap_leaves_nothing_below_tmp(tiny: Tiny, copy: Checkout) -> None:
    """Some hundred MiB a kill, and the host's /proc and /dev mounted in them, where somebody runs rm -rf."""
    before = left_below_tmp()
    with copy.popen("image", "tiny") as process:
        work = copy.store / "scratch"
        deadline = time.monotonic() + 60
        while not list(work.glob("*/*/mmdebstrap/*/usr")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        process.communicate()
    time.sleep(0.5)
    assert running_in(copy.store) == []
    assert left_below_tmp() == before
    assert tiny.image.id in copy.run("image", "tiny").fine().out
    assert list(work.iterdir()) == []
    assert left_below_tmp() == before


def test_a_damaged_tar_is_made_again_and_ctrl_c_ends_all(tiny: Tiny, copy: Checkout) -> None:
    """A store on a dying disk must not make a damaged image, nor Ctrl-C leave mmdebstrap's mounts."""
    sha256 = tiny.image.lock.rootfs_sha256
    entry = copy.store / "sha256" / sha256[:2] / sha256
    entry.parent.mkdir(parents=True, exist_ok=True)
    entry.write_bytes(b"not a tar")
    with copy.popen("image", "tiny") as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "from the lock" in line:
                break
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        said.append(process.stderr.read())
        assert process.wait() == 130, said
    err = "".join(said)
    assert "image tiny was damaged in the store" in err
    assert "Traceback" not in err
    assert "Interrupted." in err
    time.sleep(0.5)
    assert running_in(copy.store) == []
    assert list((copy.store / "scratch").iterdir()) == []


def test_docker_gives_the_image_its_locked_id(
    tiny: Tiny, docker_host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image with another id on every host could not stand in a build's record."""
    import docker

    if docker_host:
        monkeypatch.setenv("DOCKER_HOST", docker_host)
    client = docker.from_env(timeout=120)
    for image in client.images.list(all=True):
        if image.id == tiny.image.id:
            client.images.remove(image.id, force=True)
    client.images.load(tiny.image.docker.archive(tiny.image.layer()))  # type: ignore[arg-type]
    assert client.images.get(tiny.image.id).attrs["Created"].endswith("Z")
    client.close()
