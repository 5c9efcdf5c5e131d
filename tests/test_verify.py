"""What a stranger verifies with the files and a public key: every bit counts, and every lie has a name."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import evidence, files, seal, signing, verify
from pipeline.build import Build
from pipeline.errors import HostError
from pipeline.evidence import Kind
from pipeline.seal import SealError
from pipeline.verify import VerificationError
from tests import builds, keys, programs, servers
from tests.keys import Key

pytestmark = pytest.mark.skipif(not shutil.which("gpg-agent"), reason="gpg-agent is not installed")

PACKAGE = "small-1.0-1-any.pkg.tar.xz"


@pytest.fixture(scope="module")
def some_keys() -> Iterator[dict[str, Key]]:
    with keys.some() as made:
        yield made


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, some_keys: dict[str, Key]) -> Build:
    """A build that is sealed and signed, as its maintainer does it."""
    build = builds.make(tmp_path_factory.mktemp("original") / "build")
    for path in [build.folder / seal.SUMS, *build.packages]:
        some_keys["mine"].sign(path)
    return build


@pytest.fixture
def folder(original: Build, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original.folder, tmp_path / "build"))


def problems(path: Path, key: Key) -> str:
    with signing.keyring(key.file) as ring:
        return verify.failures(verify.verify(path, ring))


def test_a_good_build_is_all_fine(folder: Path, some_keys: dict[str, Key]) -> None:
    """Or people would stop looking."""
    text = verify.table(str(folder), [some_keys["mine"].file])
    assert "BAD" not in text
    for item in (PACKAGE, "SHA256SUMS.sig", "provenance.json", "sbom.cdx.json", "evidence of smoke"):
        assert item in text
    assert problems(folder / PACKAGE, some_keys["mine"]) == ""


def test_coreutils_agree(folder: Path) -> None:
    """A stranger does not need this project to check the sums."""
    subprocess.run(
        ["sha256sum", "--check", "--strict", seal.SUMS], cwd=folder, check=True, capture_output=True
    )


def test_another_key_is_not_enough(folder: Path, some_keys: dict[str, Key]) -> None:
    """Anybody can sign."""
    assert "signed by an unknown key" in problems(folder, some_keys["other"])
    with pytest.raises(VerificationError, match="signed by an unknown key"):
        verify.table(str(folder), [some_keys["other"].file], unsigned=True)


def test_nothing_signed_must_be_asked_for(folder: Path, some_keys: dict[str, Key]) -> None:
    """Taking the signatures away must not make a forgery pass."""
    for path in folder.rglob("*.sig"):
        path.unlink()
    with pytest.raises(VerificationError, match="not signed"):
        verify.table(str(folder), [some_keys["mine"].file])
    assert "BAD" not in verify.table(str(folder), [some_keys["mine"].file], unsigned=True)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_flipped_bit_is_named(folder: Path, some_keys: dict[str, Key], data: st.DataObject) -> None:
    """Packages, signatures, evidence, provenance, the list itself: nothing may change unseen."""
    path = data.draw(st.sampled_from(sorted(p for p in folder.rglob("*") if p.is_file())))
    good = path.read_bytes()
    position = data.draw(st.integers(0, len(good) - 1))
    damaged = bytearray(good)
    damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged)
    try:
        found = problems(folder, some_keys["mine"])
    finally:
        path.write_bytes(good)
    assert str(path.relative_to(folder)) in found


def lie(folder: Path, kind: Kind) -> None:
    """Say in the evidence that it is about another package, and list it as if that were right."""
    path = evidence.path(folder, kind)
    text = path.read_text().replace(files.sha256(folder / PACKAGE), "f" * 64)
    path.write_text(text)
    relist(folder, path)


def relist(folder: Path, path: Path) -> None:
    name = str(path.relative_to(folder))
    lines = (folder / seal.SUMS).read_text().splitlines()
    kept = [line for line in lines if not line.endswith(f"  {name}")]
    (folder / seal.SUMS).write_text("\n".join(sorted([*kept, f"{files.sha256(path)}  {name}"])) + "\n")


def not_these(folder: Path) -> None:
    path = folder / "provenance.json"
    statement = json.loads(path.read_text())
    statement["subject"].pop()
    path.write_text(json.dumps(statement))
    relist(folder, path)


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (lambda f: lie(f, Kind.SMOKE), "evidence of smoke: .*about other bytes of small-1"),
        (lambda f: lie(f, Kind.CHECK), "evidence of check: .*about other bytes of small-1"),
        (not_these, "provenance.json: about other bytes of small-docs"),
        (lambda f: (f / "sbom.cdx.json").unlink(), "sbom.cdx.json: missing"),
        (lambda f: (f / PACKAGE).unlink(), "small-1.0-1-any.pkg.tar.xz: missing"),
        (lambda f: (f / "aur" / "evil.install").touch(), "aur/evil.install: not in SHA256SUMS"),
        (lambda f: (f / "other-1-1-any.pkg.tar.xz").touch(), "other-1-1-any.pkg.tar.xz: not in SHA256SUMS"),
        (lambda f: (f / seal.SUMS).unlink(), "has no SHA256SUMS"),
        (
            lambda f: evidence.path(f, Kind.REPRODUCE).unlink(),
            "reproduce: .*There is no evidence",
        ),
    ],
)
def test_a_lie_that_the_list_agrees_with_is_caught(
    folder: Path, some_keys: dict[str, Key], fault: Callable[[Path], None], problem: str
) -> None:
    """A maintainer's own mistake, signed and sealed, is still a mistake."""
    fault(folder)
    if (folder / seal.SUMS).is_file():
        some_keys["mine"].sign(folder / seal.SUMS)
    with pytest.raises(VerificationError, match=problem):
        verify.table(str(folder), [some_keys["mine"].file])


def test_a_url_is_verified_as_a_folder_is(folder: Path, some_keys: dict[str, Key]) -> None:
    """The files of a web server are what most people have."""
    with servers.serving() as server:
        for path in folder.rglob("*"):
            if path.is_file():
                server.add(f"/b/{path.relative_to(folder)}", servers.good(path.read_bytes()))
        key_files = [some_keys["mine"].file]
        assert "BAD" not in verify.table(f"{server.root}/b/", key_files)
        assert "BAD" not in verify.table(f"{server.root}/b/{PACKAGE}", key_files)
        server.add("/b/evidence/smoke.json", servers.status(404))
        with pytest.raises(VerificationError, match=r"evidence/smoke\.json: missing"):
            verify.table(f"{server.root}/b/", key_files)


@given(data=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_list_is_read_or_refused(data: bytes) -> None:
    """It comes from other machines."""
    try:
        names = seal.parse(data)
    except SealError:
        return
    for name in names:
        assert not Path(name).is_absolute()
        assert ".." not in Path(name).parts


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../b", "a/b/c", "a b", ".", "a/.."])
def test_a_list_that_leads_elsewhere_is_refused(name: str) -> None:
    """Its names become paths on this machine."""
    with pytest.raises(SealError):
        seal.parse(f"{'a' * 64}  {name}\n".encode())


def test_sealing_again_drops_signatures_of_other_bytes(folder: Path) -> None:
    """Or an old signature would stand beside new bytes."""
    path = evidence.path(folder, Kind.CHECK)
    path.write_text(path.read_text().replace("well", "fine"))
    seal.seal(folder, {})
    assert not list(folder.rglob("*.sig"))
    assert seal.read(folder)["evidence/check.json"] == files.sha256(path)


def test_signing_that_fails_leaves_the_signatures_that_there_were(
    folder: Path, some_keys: dict[str, Key], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C at the pinentry would otherwise leave a published build unsigned."""
    mine = some_keys["mine"]
    monkeypatch.setenv("GNUPGHOME", str(mine.home))
    seal.seal(folder, {}, mine.fingerprint)
    before = {path.name: path.read_bytes() for path in seal.signatures(folder)}
    # The first signature is made, and the second is not.
    once = f"[ -e {tmp_path}/done ] && exit 2\ntouch {tmp_path}/done"
    programs.instead(monkeypatch, tmp_path, "gpg", f'{once}\nexec /usr/bin/gpg "$@"')
    with pytest.raises(HostError, match="could not sign"):
        seal.seal(folder, {}, mine.fingerprint, anew=True)
    assert {path.name: path.read_bytes() for path in seal.signatures(folder)} == before
    monkeypatch.undo()
    monkeypatch.setenv("GNUPGHOME", str(mine.home))
    for path in folder.glob("*.sig"):
        path.write_bytes(b"damaged")
    seal.seal(folder, {}, mine.fingerprint, anew=True)
    with signing.keyring(mine.file) as ring:
        assert all(row.fine for row in verify.verify(folder, ring) if row.item.endswith(".sig"))
