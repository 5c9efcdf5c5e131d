"""From one machine to the next by `bundle` and `receive`: what is refused, and that nothing of it stays."""

from __future__ import annotations

import hashlib
import io
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from pipeline import files, records
from pipeline.build import Build
from pipeline.bundle import archive
from pipeline.bundle.archive import Reader
from pipeline.bundle.manifest import Entry, Manifest
from pipeline.evidence import Kind
from tests import builds, checkouts, keys, servers
from tests.checkouts import Checkout
from tests.keys import Key

pytestmark = pytest.mark.skipif(not shutil.which("gpg-agent"), reason="gpg-agent is not installed")

RELEASE = "4.17"


@pytest.fixture(scope="module")
def some_keys() -> Iterator[dict[str, Key]]:
    with keys.some() as made:
        yield made


@pytest.fixture(scope="module")
def sender(tmp_path_factory: pytest.TempPathFactory, some_keys: dict[str, Key]) -> Checkout:
    """A maintainer's checkout with a finished, proven build and a key to sign with."""
    folder = tmp_path_factory.mktemp("sender")
    mine = some_keys["mine"]
    settings = {"INVOKE_PIPELINE_SIGNING_KEY": mine.fingerprint, "GNUPGHOME": str(mine.home)}
    checkout = Checkout(checkouts.copy(folder / "checkout"), folder / "store", settings)
    finish(checkout)
    return checkout


@pytest.fixture
def receiver(tmp_path: Path) -> Checkout:
    """Another machine, which knows nobody's keys."""
    settings = {"GNUPGHOME": str(tmp_path / "gpg")}
    return Checkout(checkouts.copy(tmp_path / "checkout"), tmp_path / "store", settings)


def finish(checkout: Checkout, proven: tuple[Kind, ...] = tuple(Kind), arch: str = "any") -> Build:
    folder = checkout.artifacts / RELEASE
    build = builds.make(folder / "0123456789abcdef", proven=proven, arch=arch)
    (folder / "latest").symlink_to(build.folder.name)
    return build


@pytest.fixture(scope="module")
def bundle(sender: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("bundle") / "x.tar"
    sender.run("bundle", RELEASE, "--output", str(target)).fine()
    return target


def received(checkout: Checkout) -> list[str]:
    """Every file that receiving has left behind."""
    folder = checkout.artifacts / "received"
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


def test_what_was_bundled_arrives_and_verifies(
    bundle: Path, sender: Checkout, receiver: Checkout, some_keys: dict[str, Key]
) -> None:
    """A package is built on one machine and installed on another: the wiki page's first promise."""
    key = str(some_keys["mine"].file)
    said = receiver.run("receive", str(bundle), "--key", key).fine()
    assert some_keys["mine"].fingerprint in said.err
    folder = Path(said.out.strip())
    there = folder / "build"
    here = sender.artifacts / RELEASE / "latest"
    for name in ("small-1.0-1-any.pkg.tar.xz", "small-1.0-1-any.pkg.tar.xz.sig", "evidence/smoke.json"):
        assert (there / name).read_bytes() == (here / name).read_bytes()
    receiver.run("verify", str(there), "--key", key).fine()
    assert receiver.run("receive", str(bundle), "--key", key).fine().out.strip() == str(folder)


def test_the_same_build_makes_the_same_bundle_and_a_pipe_will_do(
    bundle: Path, sender: Checkout, receiver: Checkout, some_keys: dict[str, Key]
) -> None:
    """`inv bundle -o - | ssh host inv receive -` needs no file in between."""
    with sender.popen("bundle", RELEASE, "--output", "-") as sending:
        assert sending.stdout is not None
        piped = sending.stdout.buffer.read()  # type: ignore[attr-defined]
    assert hashlib.sha256(piped).hexdigest() == files.sha256(bundle)
    argv = ("receive", "-", "--key", str(some_keys["mine"].file))
    with receiver.popen(*argv, stdin=bundle.open("rb")) as receiving:
        out, err = receiving.communicate()
    assert receiving.returncode == 0, err
    assert (Path(out.strip()) / "build" / "build.json").is_file()


def test_a_url_will_do(bundle: Path, receiver: Checkout, some_keys: dict[str, Key]) -> None:
    """And a broken connection goes on where it stopped."""
    data = bundle.read_bytes()
    with servers.serving() as server:
        url = server.add("/x.tar", servers.broken_after(data, len(data) // 2), servers.good(data))
        receiver.run("receive", url, "--key", str(some_keys["mine"].file)).fine()
        assert server.requests[1].range == f"bytes={len(data) // 2}-"


def forged(bundle: Path, edit: Callable[[Manifest], Manifest]) -> bytes:
    """Change the manifest of a bundle, and leave all else as it is."""
    reader = Reader(bundle.open("rb"))
    old, new = reader.manifest_bytes, records.encode(edit(reader.manifest))
    out = io.BytesIO()
    archive.write_member(out, archive.MANIFEST, new)
    rest = bundle.read_bytes()[512 + len(old) + -len(old) % 512 :]
    return out.getvalue() + rest


def other_machine(manifest: Manifest) -> Manifest:
    return msgspec.structs.replace(manifest, architecture="aarch64")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ((), "signed by an unknown key"),
        (("--key", "other"), "signed by an unknown key"),
        (("--key", "old"), "signed by an unknown key"),
        (("--key", "bundle"), "does not hold a public key"),
        (("--key", "nowhere"), "is missing"),
    ],
)
def test_a_stranger_is_refused_unless_told(
    bundle: Path, receiver: Checkout, some_keys: dict[str, Key], options: tuple[str, ...], problem: str
) -> None:
    """Anybody can make a bundle that is sound in itself."""
    files = {name: str(key.file) for name, key in some_keys.items()} | {"bundle": str(bundle)}
    words = [files.get(word, word) for word in options]
    finished = receiver.run("receive", str(bundle), *words)
    assert problem in finished.err
    assert finished.status in (1, 2)
    assert received(receiver) == []
    if "bundle" not in options and "nowhere" not in options:
        told = receiver.run("receive", str(bundle), *words, "--unknown-signer").fine()
        assert "it is taken all the same" in told.err


def test_a_forged_manifest_is_not_signed_by_anybody(
    bundle: Path, receiver: Checkout, some_keys: dict[str, Key], tmp_path: Path
) -> None:
    """Not even for those who take bundles of strangers."""
    (tmp_path / "forged.tar").write_bytes(forged(bundle, other_machine))
    for options in ((), ("--unknown-signer",)):
        argv = ("receive", str(tmp_path / "forged.tar"), "--key", str(some_keys["mine"].file), *options)
        assert "changed after it was signed" in receiver.run(*argv).failed(1).err
    assert received(receiver) == []


def test_another_architecture_is_refused_and_both_are_named(
    tmp_path: Path, receiver: Checkout, sender: Checkout
) -> None:
    """The page says: the same architecture."""
    shutil.rmtree(receiver.artifacts, ignore_errors=True)
    finish(receiver, arch="aarch64")
    receiver.run("bundle", RELEASE, "--output", str(tmp_path / "x.tar")).fine()
    said = receiver.run("receive", str(tmp_path / "x.tar"), "--unknown-signer").failed(1).err
    assert "is for aarch64" in said
    assert platform.machine() in said


def test_what_is_not_proven_is_marked(tmp_path: Path, receiver: Checkout) -> None:
    """Or an unbooted hypervisor would reach a machine on somebody's say-so."""
    finish(receiver, proven=(Kind.CHECK,))
    target = tmp_path / "x.tar"
    said = receiver.run("bundle", RELEASE, "--output", str(target)).failed(1).err
    assert "There is no evidence of reproduce" in said
    assert "There is no evidence of smoke" in said
    assert not target.exists()
    receiver.run("bundle", RELEASE, "--output", str(target), "--allow-unproven").fine()
    argv = ("receive", str(target), "--unknown-signer")
    assert "says of itself that its packages are not proven" in receiver.run(*argv).failed(1).err
    assert received(receiver) == []
    receiver.run(*argv, "--allow-unproven").fine()


@pytest.mark.parametrize("damage", ["empty", "garbage", "folder", "gone"])
def test_damaged_papers_are_not_bundled(tmp_path: Path, receiver: Checkout, damage: str) -> None:
    """The sender can make the build again; who receives it, far away, could only refuse it."""
    build = finish(receiver)
    paper = build.folder / "provenance.json"
    paper.unlink()
    if damage == "folder":
        paper.mkdir()
    elif damage != "gone":
        paper.write_text("" if damage == "empty" else "garbage")
    target = tmp_path / "x.tar"
    assert "provenance.json" in receiver.run("bundle", RELEASE, "--output", str(target)).failed(3).err
    assert not target.exists()


def resigned(
    bundle: Path,
    key: Key,
    files: dict[str, bytes],
    tmp_path: Path,
    *,
    without: str = "none",
    release: str = RELEASE,
) -> Path:
    """A bundle changed by somebody who has the key: sound in itself, and signed.

    ``files`` are other contents, ``without`` begins the paths that are left out.
    """
    reader = Reader(bundle.open("rb"))
    reader.unpack(tmp_path / "forging")
    entries = []
    for entry in reader.manifest.entries:
        path = tmp_path / "forging" / entry.path
        if entry.path.startswith(without):
            continue
        if entry.path in files:
            path.write_bytes(files[entry.path])
        data = path.read_bytes()
        entries.append(Entry(path=entry.path, size=len(data), sha256=hashlib.sha256(data).hexdigest()))
    manifest = tmp_path / "manifest.json"
    new = msgspec.structs.replace(reader.manifest, entries=tuple(entries), release=release)
    manifest.write_bytes(records.encode(new))
    target = tmp_path / "resigned.tar"
    with target.open("wb") as out:
        paths = {entry.path: tmp_path / "forging" / entry.path for entry in entries}
        archive.write(out, manifest.read_bytes(), key.sign(manifest).read_bytes(), paths)
    return target


def test_what_was_adopted_is_the_newest_build_with_what_others_proved(
    tmp_path: Path, receiver: Checkout
) -> None:
    """Machines that share the work hand it on; evidence of other bytes must not slip in on the way."""
    other = Checkout(checkouts.copy(tmp_path / "other"), tmp_path / "other store")
    built = finish(other, proven=(Kind.CHECK,))
    target = tmp_path / "x.tar"
    other.run("bundle", RELEASE, "--allow-unproven", "--output", str(target)).fine()
    proofs = tmp_path / "proofs"
    proofs.mkdir()
    foreign = finish(Checkout(tmp_path / "foreign", tmp_path))
    evidence = (foreign.folder / "evidence" / "smoke.json").read_text()
    words = (
        "receive",
        str(target),
        "--adopt",
        "--unknown-signer",
        "--allow-unproven",
        "--evidence",
        str(proofs),
    )
    (proofs / "smoke.json").write_text(evidence.replace(built.record.packages[0].sha256, "0" * 64))
    assert "about other bytes" in receiver.run(*words).failed(1).err
    assert not (receiver.artifacts / RELEASE / "latest").exists()
    for _ in ("anew", "in the place of the one before"):
        (proofs / "smoke.json").write_text(evidence)
        receiver.run(*words).fine()
        latest = receiver.artifacts / RELEASE / "latest"
        assert latest.resolve().name == built.record.build_id
        assert sorted(p.name for p in (latest / "evidence").iterdir()) == ["check.json", "smoke.json"]
        receiver.run("bundle", RELEASE, "--allow-unproven").fine()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("build/evidence/smoke.json", "about other bytes"),
        ("build/small-1.0-1-any.pkg.tar.xz", "about another build"),
        ("build/provenance.json", "provenance.json"),
        ("build/sbom.cdx.json", "sbom.cdx.json"),
        ("build/build.json", "build.json"),
    ],
)
def test_papers_about_other_bytes_are_refused_though_signed(
    bundle: Path, receiver: Checkout, some_keys: dict[str, Key], tmp_path: Path, name: str, problem: str
) -> None:
    """A lie in the evidence is caught even where the liar holds the key."""
    reader = Reader(bundle.open("rb"))
    reader.unpack(tmp_path / "original")
    data = (tmp_path / "original" / name).read_bytes()
    sha256 = hashlib.sha256((tmp_path / "original/build/small-1.0-1-any.pkg.tar.xz").read_bytes()).hexdigest()
    changed = data.replace(sha256.encode(), b"f" * 64) if name.endswith(".json") else data + b"!"
    assert changed != data
    forgery = resigned(bundle, some_keys["mine"], {name: changed}, tmp_path)
    said = receiver.run("receive", str(forgery), "--key", str(some_keys["mine"].file)).failed(1).err
    assert problem in said
    assert received(receiver) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"without": "build/SHA256SUMS"}, "incomplete: .* has no SHA256SUMS"),
        ({"without": "build/aur/"}, "incomplete: aur/.SRCINFO"),
        ({"without": "build/aur/PKGBUILD"}, "incomplete: aur/PKGBUILD"),
        ({"without": "build/sbom"}, "sbom.cdx.json: missing"),
        ({"release": "4.2"}, "about another build"),
    ],
)
def test_an_incomplete_bundle_is_refused_though_signed(
    bundle: Path,
    receiver: Checkout,
    some_keys: dict[str, Key],
    tmp_path: Path,
    change: dict[str, str],
    problem: str,
) -> None:
    """Who makes the bundle may lose a file on the way; without its AUR folder a build cannot be pushed on."""
    forgery = resigned(bundle, some_keys["mine"], {}, tmp_path, **change)
    said = receiver.run("receive", str(forgery), "--key", str(some_keys["mine"].file)).failed(1).err
    assert re.search(problem, said)
    assert received(receiver) == []


def test_a_damaged_bundle_leaves_nothing(
    bundle: Path, receiver: Checkout, some_keys: dict[str, Key], tmp_path: Path
) -> None:
    """In the middle of the packages, and cut off at the end."""
    data = bytearray(bundle.read_bytes())
    for damaged, problem in ((data[:-600], "incomplete"), (flip(data), "is damaged in the bundle|stray")):
        (tmp_path / "x.tar").write_bytes(damaged)
        argv = ("receive", str(tmp_path / "x.tar"), "--key", str(some_keys["mine"].file))
        said = receiver.run(*argv).failed(1).err
        assert any(part in said for part in problem.split("|"))
        assert received(receiver) == []


def flip(data: bytearray) -> bytearray:
    changed = bytearray(data)
    changed[data.index(b"\xfd7zXZ") + 100] ^= 1
    return changed


def test_no_room_is_said_before_anything_is_written(
    bundle: Path, receiver: Checkout, some_keys: dict[str, Key], tmp_path: Path
) -> None:
    """A full disk in the middle would cost the other users of it more than a sentence."""

    def huge(manifest: Manifest) -> Manifest:
        entry = Entry(path="sources/huge", size=(8 << 30) - 1, sha256="0" * 64)
        return msgspec.structs.replace(
            manifest, entries=(*manifest.entries, *(rename(entry, n) for n in range(5000)))
        )

    def rename(entry: Entry, number: int) -> Entry:
        return msgspec.structs.replace(entry, path=f"sources/huge{number}")

    path = tmp_path / "huge.tar"
    data = forged(bundle, huge)
    path.write_bytes(data.replace(b"manifest.json.sig\0", b"manifest.json.gis\0", 1))
    said = receiver.run("receive", str(path), "--unknown-signer").failed(3).err
    assert "left" in said
    assert received(receiver) == []


AS_A_USER = ("bwrap", "--dev-bind", "/", "/", "--unshare-user", "--uid", "1000", "--gid", "1000", "--")
# pacman works on /, so it is given one whose changes go away with it.
IN_A_COPY = ("unshare", "--mount", "sh", "-euc", """
mount -t tmpfs tmpfs "$0" && mkdir "$0/upper" "$0/work"
mount -t overlay overlay -o "lowerdir=/usr/share,upperdir=$0/upper,workdir=$0/work" /usr/share
mkdir -p /var/lib/pacman /var/cache/pacman
mount -t tmpfs tmpfs /var/lib/pacman && mount -t tmpfs tmpfs /var/cache/pacman
"$@"
cat /usr/share/small/file
""")  # fmt: skip


def test_install_is_for_root_and_says_what_root_does(
    bundle: Path, receiver: Checkout, some_keys: dict[str, Key]
) -> None:
    """Users without rights must not wonder why nothing was installed."""
    argv = ("receive", str(bundle), "--key", str(some_keys["mine"].file), "--install")
    said = receiver.run(*argv, prefix=AS_A_USER).failed(2).err
    assert "Only root can install packages" in said
    assert "sudo pacman --upgrade" in said


@pytest.mark.integration
def test_install_is_done_by_the_real_pacman(
    bundle: Path, receiver: Checkout, some_keys: dict[str, Key], tmp_path: Path
) -> None:
    """The page's first promise, in one command on the other machine."""
    (tmp_path / "copy").mkdir()
    argv = ("receive", str(bundle), "--key", str(some_keys["mine"].file), "--install")
    done = receiver.run(*argv, prefix=(*IN_A_COPY, str(tmp_path / "copy"))).fine()
    assert "installing small" in done.err
    assert done.out.endswith("1.0-1")
