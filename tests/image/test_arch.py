"""Images of Arch, from an archive of the tests' own to a package that is built in one."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pipeline import files
from pipeline.image.assembly import Image
from pipeline.image.lock import render_lock
from pipeline.image.oci import DockerImage
from tests import archive, checkouts, servers, small
from tests.archive import DAYS, NAME
from tests.checkouts import Checkout
from tests.conftest import IMAGE
from tests.image.conftest import ArchImage, new_checkout
from tests.servers import Server
from tests.small import Small

pytestmark = pytest.mark.integration


def path_of(arch: ArchImage, name: str, repository: str = "extra", day: str = DAYS[0]) -> str:
    """Where the server first has a package."""
    folder = f"/ala/repos/{day.replace('-', '/')}/{repository}/os/x86_64"
    return f"{folder}/{arch.archive.file(name, day).name}"


def places(arch: ArchImage, name: str) -> tuple[str, str]:
    """The two other places where it has it."""
    file = arch.archive.file(name).name
    return archive.places_of(file, file)


@pytest.fixture
def another_host(arch: ArchImage, mirror: Server) -> Iterator[tuple[Checkout, list[str]]]:
    """A checkout with the lock, and a program that makes another host of this one: name, umask, user."""
    with tempfile.TemporaryDirectory(prefix="another-") as name:
        folder = Path(name)
        checkout = new_checkout(folder, arch.archive, mirror)
        shutil.copy(arch.lock_file, checkout.root / "containers")
        if os.geteuid() != 0:
            yield checkout, ["sh", "-c", 'umask 0077; exec "$0" "$@"']
            return
        # bubblewrap refuses to run with the capability that lets the user read this test's Python.
        definition, _, _ = archive.DEFINITION.partition("[proof]")
        (checkout.root / "containers" / f"{NAME}.toml").write_text(definition)
        (folder / "passwd").write_text("root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/nowhere:/bin/sh\n")
        (folder / "subuid").write_text("me:100000:65536\n")
        subprocess.run(["chown", "--recursive", "1000:1000", folder], check=True)
        folder.chmod(0o755)
        yield checkout, ["unshare", "--mount", "--uts", "sh", "-c", _ANOTHER_USER, str(folder)]


# A user without any rights, but for reading this test's Python, which may lie below /root.
_ANOTHER_USER = """
set -e
mount --bind "$0/passwd" /etc/passwd
for name in subuid subgid; do mount --bind "$0/subuid" /etc/$name; done
hostname elsewhere
umask 0077
exec setpriv --reuid=1000 --regid=1000 --clear-groups \\
  --inh-caps=+dac_read_search --ambient-caps=+dac_read_search "$@"
"""


def test_a_lock_is_made_on_first_use_and_says_what_it_holds(arch: ArchImage) -> None:
    """Or `release` would need a second command on a connected machine, and nobody would commit the lock."""
    (line,) = [line for line in arch.said.splitlines() if "had no lock" in line]
    assert f"6 packages of Arch on {DAYS[0]}" in line
    assert f"containers/{NAME}.lock" in line


def test_pacman_settles_groups_providers_and_conflicts(arch: ArchImage) -> None:
    """Or a lock could hold packages that cannot be installed together."""
    assert [p.name for p in arch.lock.packages] == [
        *("ed", "fat", "filesystem", "gcc-multilib", "hello", "hello-libs++"),
    ]
    assert {p.name: p.repository for p in arch.lock.packages}["gcc-multilib"] == "multilib"
    assert {p.signature for p in arch.lock.packages} == {"good"}
    places = [source.urls for source in arch.lock.sources if source.name.startswith("hello-libs")]
    assert places == [
        (
            "https://archive.archlinux.org/repos/2013/11/01/extra/os/x86_64/hello-libs++-1.0-1-x86_64.pkg.tar.zst",
            "https://archive.archlinux.org/packages/h/hello-libs++/hello-libs++-1.0-1-x86_64.pkg.tar.zst",
            "https://archive.org/download/archlinux_pkg_hello-libs__/hello-libs++-1.0-1-x86_64.pkg.tar.zst",
        )
    ]


def test_another_day_changes_the_lines_of_what_changed(
    arch: ArchImage, mirror: Server, tmp_path: Path
) -> None:
    """Or nobody could review what a newer snapshot brings."""
    checkout = new_checkout(tmp_path, arch.archive, mirror)
    checkouts.borrow(arch.checkout.store, checkout.store, arch.package("fat"))
    checkout.run("image.lock", NAME, "--date", DAYS[1]).fine()
    definition = (checkout.root / "containers" / f"{NAME}.toml").read_text()
    assert definition == archive.DEFINITION.replace(DAYS[0], DAYS[1])
    before = arch.lock_file.read_text().splitlines()
    after = (checkout.root / "containers" / f"{NAME}.lock").read_text().splitlines()
    changed = [line for line in after if line not in before and line.startswith("  { ")]
    assert [line.partition(", ")[0] for line in changed] == [
        *('  { repository = "core"', '  { repository = "extra"', '  { repository = "multilib"'),
        '  { repository = "extra"',
    ]
    assert 'name = "hello", version = "1.1-1"' in changed[3]
    assert "no day" in checkout.run("image.lock", NAME, "--date", "2013-13-01").failed(2).err
    assert "has no days" in checkout.run("image.lock", IMAGE, "--date", DAYS[0]).failed(2).err


def test_every_host_and_user_assembles_the_same_bytes(
    arch: ArchImage, another_host: tuple[Checkout, list[str]]
) -> None:
    """Otherwise two maintainers build in different images, and neither is the locked one."""
    checkout, prefix = another_host
    environment = {"TZ": "Asia/Kolkata", "LC_ALL": "C", "LANG": "de_DE.UTF-8", "HOME": str(checkout.store)}
    done = checkout.run("image", NAME, "--verify", env=environment, prefix=prefix).fine()
    assert arch.lock.image_id in done.out
    assert f"both times the locked tar, {arch.lock.rootfs_sha256}" in done.out


def test_what_differs_by_the_clock_or_by_chance_is_named(arch: ArchImage, elsewhere: Checkout) -> None:
    """Or a maintainer would learn that an image is not reproducible, and not why."""
    script = elsewhere.root / "pipeline" / "image" / "arch.sh"
    text = script.read_text()
    by_chance = "head -c 16 /dev/urandom > etc/machine-id\ntouch etc/$(date +%s%N)\n"
    assert text.count(": > etc/machine-id\n") == 1
    checkouts.borrow(arch.checkout.store, elsewhere.store, arch.lock.rootfs_sha256)
    script.write_text(text.replace(": > etc/machine-id\n", by_chance))
    err = elsewhere.run("image", NAME, "--verify").failed(1).err
    assert "not the same when it is assembled twice" in err
    assert "/etc/machine-id: content" in err
    assert re.search(r"/etc/\d+: only in the (first|second)", err)
    script.write_text(text.replace("printf 'xen-build\\n' > etc/hostname", "printf 'mine\\n' > etc/hostname"))
    err = elsewhere.run("image", NAME, "--verify").failed(1).err
    assert "not the one of its lock" in err
    assert "/etc/hostname: size, content" in err


def test_an_image_that_cannot_be_made_here_can_be_verified(arch: ArchImage, elsewhere: Checkout) -> None:
    """Whoever is told to verify it has no image yet, and is helped on."""
    script = elsewhere.root / "pipeline" / "image" / "arch.sh"
    text = script.read_text()
    script.write_text(text.replace("printf 'xen-build\\n' > etc/hostname", "printf 'mine\\n' > etc/hostname"))
    assert f"./inv image {NAME} --verify" in elsewhere.run("image", NAME).failed(3).err
    err = elsewhere.run("image", NAME, "--verify").failed(1).err
    assert "not the one of its lock" in err
    assert f"./inv image {NAME} --import FILE --verify" in err


def test_a_broken_promise_is_named(arch: ArchImage, elsewhere: Checkout) -> None:
    """Or an image without 32-bit libraries would be noticed by Xen's configure, an hour later."""
    checkouts.borrow(arch.checkout.store, elsewhere.store, arch.lock.rootfs_sha256)
    definition = elsewhere.root / "containers" / f"{NAME}.toml"
    definition.write_text(archive.DEFINITION + '"compiles for 32 bits" = "echo tried; gcc -m32 x.c"\n')
    err = elsewhere.run("image", NAME).failed(1).err
    assert "does not do what its definition promises: compiles for 32 bits" in err
    assert "tried" in err
    assert "gcc -m32 x.c" in err
    assert list((elsewhere.store / "images").glob("[0-9a-f]*/")) == []


# The faults: each link of the chain, broken once.


def refetched(arch: ArchImage, checkout: Checkout) -> Path:
    """Where the package that the faults are about would be in the store."""
    sha256 = arch.package("hello")
    return checkout.store / "sha256" / sha256[:2] / sha256


def test_one_changed_byte_in_every_place_is_refused(
    arch: ArchImage, elsewhere: Checkout, mirror: Server
) -> None:
    data = bytearray(arch.archive.file("hello").read_bytes())
    data[-1] ^= 1
    for place in (path_of(arch, "hello"), *places(arch, "hello")):
        mirror.add(place, servers.good(bytes(data)))
    err = elsewhere.run("image", NAME).failed(3).err
    assert "hello-1.0-1-x86_64.pkg.tar.zst" in err
    assert "sends other bytes, with the SHA-256" in err
    assert "--image debian-bullseye" in err
    assert not refetched(arch, elsewhere).exists()


def test_a_database_swapped_after_locking_is_refused(
    arch: ArchImage, elsewhere: Checkout, mirror: Server
) -> None:
    folder = "/ala/repos/2013/11/01/extra/os/x86_64"
    other = arch.archive.database("extra", DAYS[2]).read_bytes()
    mirror.add(f"{folder}/extra.db", servers.unannounced(other))
    err = elsewhere.run("image", NAME).failed(3).err
    assert "extra.db" in err
    assert "SHA-256" in err


def test_what_one_place_fails_to_give_comes_from_the_next(
    arch: ArchImage, elsewhere: Checkout, mirror: Server
) -> None:
    """A download cut off, a circle of redirects, a stranger's page, a package that vanished."""
    first = {name: path_of(arch, name) for name in ("ed", "hello", "hello-libs++")}
    first["gcc-multilib"] = path_of(arch, "gcc-multilib", "multilib")
    data = arch.archive.file("gcc-multilib").read_bytes()
    with servers.serving() as stranger:
        mirror.add(first["gcc-multilib"], servers.broken_after(data, 100), servers.good(data))
        for place in places(arch, "gcc-multilib"):
            mirror.add(place, servers.status(503), servers.status(404))
        second, third = places(arch, "hello")
        mirror.add(first["hello"], servers.redirect(second))
        mirror.add(second, servers.redirect(first["hello"]))
        mirror.add(
            first["ed"], servers.redirect(stranger.add("/login", servers.good(b"<html>Welcome</html>")))
        )
        mirror.add(first["hello-libs++"], servers.status(404))
        done = elsewhere.run("image", NAME).fine()
    assert arch.lock.image_id in done.out
    said = dict.fromkeys(first, "")
    for line in done.err.splitlines():
        for name in first:
            if f"{name}-1.0-1-x86_64.pkg.tar.zst: http" in line:
                said[name] += line
    assert "too early" in said["gcc-multilib"] or "ended after 100" in said["gcc-multilib"]
    ranges = [request.range for request in mirror.requests if request.path == first["gcc-multilib"]]
    assert ranges == [None, "bytes=100-"]
    assert "redirects in a circle" in said["hello"]
    assert third in [request.path for request in mirror.requests]
    assert "announces 20 bytes" in said["ed"]
    assert "HTTP 404" in said["hello-libs++"]


def test_a_lock_edited_by_hand_is_refused(arch: ArchImage, elsewhere: Checkout) -> None:
    """By its seal; and with a forged seal, by the databases, by pacman, or by what comes out."""
    path = elsewhere.root / "containers" / f"{NAME}.lock"
    good = path.read_text()
    path.write_text(good.replace('version = "1.0-1"', 'version = "1.0-2"', 1))
    err = elsewhere.run("image", NAME).failed(2).err
    assert "is not what image.lock wrote" in err
    lock = arch.lock
    hello = next(p for p in lock.packages if p.name == "hello")
    newer = arch.archive.file("hello", DAYS[1])
    forged = msgspec.structs.replace(hello, sha256=files.sha256(newer), size=newer.stat().st_size)
    others = [p for p in lock.packages if p.name != "hello"]
    checkouts.borrow(arch.checkout.store, elsewhere.store, arch.package("gcc-multilib"))
    entry = elsewhere.store / "sha256" / forged.sha256[:2] / forged.sha256
    entry.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(newer, entry)
    for packages, said, status in (
        ([*others, forged], "disagree on hello", 3),
        (others, "came out differently from its lock", 3),
        ([*others, hello, hello], "two packages are called hello", 2),
    ):
        path.write_text(render_lock(msgspec.structs.replace(lock, packages=tuple(packages))))
        assert said in elsewhere.run("image", NAME).failed(status).err
    path.write_text(render_lock(msgspec.structs.replace(lock, image_id=f"sha256:{'0' * 64}")))
    assert "is not the id that follows" in elsewhere.run("image", NAME).failed(2).err


def test_a_package_changed_after_it_was_signed_is_never_locked(
    arch: ArchImage, mirror: Server, tmp_path: Path
) -> None:
    """Or the archive, once broken into, could put anything into a new lock."""
    checkout = new_checkout(tmp_path, arch.archive, mirror)
    checkouts.borrow(arch.checkout.store, checkout.store, arch.package("fat"))
    err = checkout.run("image.lock", NAME, "--date", DAYS[2]).failed(3).err
    assert "changed after they were signed: hello" in err
    assert not (checkout.root / "containers" / f"{NAME}.lock").exists()
    assert f'snapshot = "{DAYS[0]}"' in (checkout.root / "containers" / f"{NAME}.toml").read_text()


def test_an_archive_that_does_not_answer_is_one_sentence_and_a_way_out(
    arch: ArchImage, mirror: Server, tmp_path: Path
) -> None:
    """And where no lock may be made, what to do is said as well."""
    checkout = new_checkout(tmp_path, arch.archive, mirror)
    (checkout.root / "invoke.yaml").write_text('{"pipeline": {"release": "4.17"}}')
    for arguments, env in (["--locked"], {}), ([], {"CI": "true"}):
        err = checkout.run("image", NAME, *arguments, env=env).failed(2).err
        assert "has no lock" in err
        assert f"image.lock {NAME}" in err
    err = checkout.run("image", NAME).failed(3).err
    assert "Arch Linux Archive" in err
    assert "--image debian-bullseye" in err
    assert not list((checkout.root / "containers").glob(f"*{NAME}.lock*"))


# What becomes of it.


def described(root: Path) -> dict[str, tuple[object, ...]]:
    """All that a job could see of a tree, but for the contents, which have been compared with the lock."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [root, *root.rglob("*")]:
        info = path.lstat()
        extra = os.listxattr(path, follow_symlinks=False)
        found[str(path.relative_to(root))] = (info.st_mode, info.st_uid, info.st_gid, info.st_mtime, extra)
    return found


def test_a_file_brings_the_image_to_a_machine_without_any_archive(
    arch: ArchImage, elsewhere: Checkout, tmp_path: Path
) -> None:
    """Or a machine without network could not rebuild what was built in this image."""
    subprocess.run(
        ["tar", "--extract", "--file", arch.file, "--one-top-level=layout"], cwd=tmp_path, check=True
    )
    (index,) = msgspec.json.decode((tmp_path / "layout/index.json").read_bytes())["manifests"]
    blobs = tmp_path / "layout/blobs/sha256"
    manifest = msgspec.json.decode((blobs / index["digest"].partition(":")[2]).read_bytes())
    assert manifest["config"]["digest"] == arch.lock.image_id
    for path in blobs.iterdir():
        assert files.sha256(path) == path.name
    offline = {"INVOKE_PIPELINE_DOWNLOADS": "1"}
    (elsewhere.root / "invoke.yaml").write_text('{"pipeline": {"release": "4.17"}}')
    done = elsewhere.run("image", NAME, "--import", str(arch.file), env=offline).fine()
    assert arch.lock.image_id in done.out
    unpacked, assembled = (c.store / "images" / arch.lock.rootfs_sha256 for c in (elsewhere, arch.checkout))
    assert described(unpacked / "root") == described(assembled / "root")


def test_a_tree_that_no_longer_makes_its_tar_is_not_passed_off(
    arch: ArchImage, elsewhere: Checkout, tmp_path: Path
) -> None:
    """What docker gets is packed from the tree when it is wanted; owners are in no manifest."""
    root = elsewhere.store / "images" / arch.lock.rootfs_sha256 / "root"
    for name in ("hello", "hello-libs++", "ed", "filesystem", "gcc-multilib"):
        checkouts.borrow(arch.checkout.store, elsewhere.store, arch.package(name))
    elsewhere.run("image", NAME).fine()
    tar = elsewhere.store / "sha256" / arch.lock.rootfs_sha256[:2] / arch.lock.rootfs_sha256
    assert tar.exists() is (os.geteuid() != 0)
    tar.unlink(missing_ok=True)
    file = tmp_path / "image.tar"
    if os.geteuid() == 0:
        os.chown(root / "etc" / "passwd", 1, 1)
        err = elsewhere.run("image", NAME, "--export", str(file)).failed(3).err
        assert "owners or permissions" in err
        assert not file.exists()
        assert not root.exists()
    elsewhere.run("image", NAME, "--export", str(file)).fine()
    assert file.read_bytes() == arch.file.read_bytes()


def test_a_file_with_another_image_is_refused(arch: ArchImage, elsewhere: Checkout, tmp_path: Path) -> None:
    """Or whoever hands over the file would decide what packages are built in."""
    layer, epoch = tmp_path / "layer", arch.lock.source_date_epoch
    layer.write_bytes(b"not the root")
    other = DockerImage(files.sha256(layer), epoch)
    (tmp_path / "other.tar").write_bytes(b"".join(other.archive(layer)))
    err = elsewhere.run("image", NAME, "--import", str(tmp_path / "other.tar")).failed(3).err
    assert "another image than archtest" in err
    # The right configuration around another layer.
    right = DockerImage(arch.lock.rootfs_sha256, epoch)
    (tmp_path / "forged.tar").write_bytes(b"".join(right.archive(layer)))
    err = elsewhere.run("image", NAME, "--import", str(tmp_path / "forged.tar")).failed(3).err
    assert "is not that of image archtest" in err
    for junk in (b"", b"not a tar", b"".join(right.archive(layer))[:2000]):
        (tmp_path / "junk.tar").write_bytes(junk)
        assert (
            "holds no image"
            in elsewhere.run("image", NAME, "--import", str(tmp_path / "junk.tar")).failed(2).err
        )


def test_a_real_package_is_built_inside_with_the_network_off(
    arch: ArchImage, image: Image, elsewhere: Checkout, mirror: Server, docker_env: dict[str, str]
) -> None:
    """The old image compiles, the packaging image packs; both engines give the image its locked id."""
    store = elsewhere.store
    checkouts.borrow(arch.checkout.store, store, arch.lock.rootfs_sha256)
    checkouts.borrow(image.store.root, store, image.lock.rootfs_sha256)
    (store / "images").mkdir()
    for folder in (image.folder, arch.checkout.store / "images" / arch.lock.rootfs_sha256):
        (store / "images" / folder.name).symlink_to(folder)
    data = small.archive(secrets.token_hex(8))
    offline = '! (exec 3<>/dev/tcp/127.0.0.1/80) 2> /dev/null; test "$(wc -l < /proc/net/dev)" -le 3'
    package = Small(data, mirror.add("/small-1.0.tar.gz", servers.good(data)), image=NAME, build=offline)
    package.write(elsewhere.root)
    elsewhere.run("build", "small").fine()
    built = elsewhere.packages()
    assert sorted(built) == ["small-1.0-1-x86_64.pkg.tar.xz", "small-docs-1.0-1-any.pkg.tar.xz"]
    assert arch.lock.image_id in (elsewhere.latest / "build.json").read_text()
    assert files.sha256(arch.lock_file) in (elsewhere.latest / "provenance.json").read_text()
    shutil.rmtree(elsewhere.artifacts / "small")
    shutil.rmtree(store / "compiled")
    elsewhere.run("build", "small", env=docker_env).fine()
    assert '"docker"' in (elsewhere.latest / "build.json").read_text()
    assert elsewhere.packages() == built
    # Every archive that is made anew gives another image, of which an engine would collect them all.
    remove = ["docker", "image", "rm", "--force", arch.lock.image_id]
    subprocess.run(remove, env={**os.environ, **docker_env}, check=True, capture_output=True)
