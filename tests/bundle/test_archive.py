"""The bundle's bytes: what goes in comes out, and nothing that was tampered with is ever unpacked whole."""

from __future__ import annotations

import contextlib
import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.bundle.archive import Reader, write
from pipeline.bundle.manifest import BundleError, Entry, Manifest, Requirements, decode
from pipeline.errors import IntegrityError
from pipeline.records import encode
from pipeline.scratch import scratch

FILES = {
    "build/build.json": b"{}",
    "build/small-1-1-x86_64.pkg.tar.xz": bytes(range(256)) * 9,
    "build/aur/.SRCINFO": b"pkgbase = small\n",
    "build/empty.log": b"",
    "sources/small.tar": b"s" * 512,
    "images/base/0123": b"i" * 1025,
}


def manifest(files: dict[str, bytes] = FILES) -> Manifest:
    return Manifest(
        format=1,
        release="small",
        build_id="0123456789abcdef",
        architecture="x86_64",
        unproven=False,
        requires=Requirements(glibc="2.34", pacman="4.0"),
        packages=("small-1-1-x86_64.pkg.tar.xz",),
        entries=tuple(
            Entry(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
            for path, data in files.items()
        ),
    )


def bundle(folder: Path, signature: bytes | None = b"signed") -> bytes:
    """Write FILES as a bundle, with their originals below ``folder``."""
    for path, data in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    out = io.BytesIO()
    write(out, encode(manifest()), signature, {path: folder / path for path in FILES})
    return out.getvalue()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return bundle(tmp_path_factory.mktemp("good"))


def unpacked(data: bytes, folder: Path) -> dict[str, bytes]:
    Reader(io.BytesIO(data)).unpack(folder)
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("signature", [b"signed", None])
def test_what_goes_in_comes_out(tmp_path: Path, signature: bytes | None) -> None:
    """Otherwise packages would be lost on the way."""
    data = bundle(tmp_path / "in", signature)
    reader = Reader(io.BytesIO(data))
    assert (reader.manifest, reader.signature) == (manifest(), signature)
    assert unpacked(data, tmp_path / "out") == FILES


def test_any_tar_can_look_into_it(good: bytes) -> None:
    """An administrator who does not trust us wants to look with tools of his own."""
    with tarfile.open(fileobj=io.BytesIO(good)) as archive:
        assert archive.getnames() == ["manifest.json", "manifest.json.sig", *FILES]


def test_the_same_files_make_the_same_bundle(tmp_path: Path, good: bytes) -> None:
    """Two maintainers compare bundles by their hash."""
    assert bundle(tmp_path / "elsewhere") == good


@pytest.mark.parametrize("change", [b"", b"{} ", b"{]"])
def test_a_file_that_changed_since_the_manifest_is_never_sent(tmp_path: Path, change: bytes) -> None:
    """A bundle that its own receiver must refuse helps nobody."""
    bundle(tmp_path)
    (tmp_path / "build/build.json").write_bytes(change)
    with pytest.raises(IntegrityError, match="is not the file that goes by"):
        write(io.BytesIO(), encode(manifest()), None, {path: tmp_path / path for path in FILES})


def test_every_truncation_is_refused(tmp_path: Path, good: bytes) -> None:
    """A broken connection must not leave a build that looks whole."""
    for number, length in enumerate(range(0, len(good), 97)):
        with pytest.raises(BundleError):
            unpacked(good[:length], tmp_path / str(number))


@contextlib.contextmanager
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to unpack to; asserts that nothing was written beside it."""
    with scratch(tmp_path_factory.getbasetemp(), "around") as around:
        (around / "inside").mkdir()
        yield around / "inside"
        assert [path.name for path in around.iterdir()] == ["inside"]


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_is_accepted(
    good: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Each byte of a bundle is covered by the manifest, or is the signature, which gpg judges."""
    position = data.draw(st.integers(0, len(good) - 1))
    bit = data.draw(st.integers(0, 7))
    damaged = bytearray(good)
    damaged[position] ^= 1 << bit
    with alone(tmp_path_factory) as folder:
        try:
            reader = Reader(io.BytesIO(bytes(damaged)))
            reader.unpack(folder)
        except BundleError:
            return
        assert (reader.manifest_bytes, reader.signature) != (encode(manifest()), b"signed")


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_spliced_or_reordered_bundle_is_accepted(
    good: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Blocks moved, repeated or left out: members may not come from elsewhere, twice or in another order."""
    blocks = [good[n : n + 512] for n in range(0, len(good), 512)]
    left = data.draw(st.integers(0, len(blocks) - 1))
    right = data.draw(st.integers(left, len(blocks)))
    target = data.draw(st.integers(0, len(blocks)))
    kept = data.draw(st.sampled_from([blocks, blocks[:left] + blocks[right:]]))
    spliced = b"".join([*kept[:target], *blocks[left:right], *kept[target:]])
    if spliced == good:
        return
    with alone(tmp_path_factory) as folder, pytest.raises(BundleError):
        unpacked(spliced, folder)


@settings(max_examples=200, deadline=None)
@given(noise=st.binary(max_size=4096))
def test_noise_is_no_bundle(noise: bytes) -> None:
    """Whatever a URL serves must end in a sentence."""
    with pytest.raises(BundleError):
        Reader(io.BytesIO(noise))


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../build.json",
        "build/../../x",
        "build/./x",
        "build//x",
        "build",
        "build/",
        "elsewhere/x",
        "build/a\nb",
        "build/a b",
        "build/\x00",
        "build/ä",
        "build/" + "x" * 94,
        "build/1/2/3/4",
    ],
)
def test_a_forged_path_is_refused(path: str) -> None:
    """A bundle must not write anywhere but into its own folder."""
    text = (
        encode(manifest()).decode().replace("build/empty.log", path.encode("unicode_escape").decode("ascii"))
    )
    with pytest.raises(BundleError, match="manifest is wrong"):
        decode(text.encode())


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"build/empty.log"', '"build/build.json"', "twice"),
        ('"build/empty.log"', '"build/aur"', "a file and a folder"),
        ('"build/build.json"', '"build/other.json"', "build/build.json is missing"),
        ('"size": 2,', '"size": -2,', "-2|>= 0"),
        ('"size": 2,', '"size": 99999999999,', "<= 8589934591"),
        ('"format": 1', '"format": 2', "format"),
        ('"unproven": false,', '"unproven": false, "more": 1,', "more"),
    ],
)
def test_a_forged_manifest_is_refused(old: str, new: str, problem: str) -> None:
    """The manifest is read before anything is known of who made it."""
    text = encode(manifest()).decode()
    assert old in text
    with pytest.raises(BundleError, match=problem):
        decode(text.replace(old, new, 1).encode())


@settings(max_examples=200, deadline=None)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children),
        max_leaves=12,
    )
)
def test_any_json_ends_in_a_sentence(value: object) -> None:
    """A traceback would tell a user nothing."""
    with pytest.raises(BundleError):
        decode(msgspec.json.encode(value))


def test_deep_nesting_ends_in_a_sentence() -> None:
    """It would exhaust the stack of a careless reader."""
    with pytest.raises(BundleError):
        decode(b"[" * 100_000)


def test_a_member_of_another_type_is_refused(tmp_path: Path, good: bytes) -> None:
    """A link or a device in the place of a file."""
    start = good.index(b"build/aur/.SRCINFO\0")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.XHDTYPE):
        info = tarfile.TarInfo("build/aur/.SRCINFO")
        info.type, info.linkname = kind, "/etc/passwd"
        info.size = len(FILES["build/aur/.SRCINFO"])
        forged = good[:start] + info.tobuf(tarfile.USTAR_FORMAT) + good[start + 512 :]
        with pytest.raises(BundleError, match="does not go on with build/aur"):
            unpacked(forged, tmp_path / kind.decode())
