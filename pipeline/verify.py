"""Whether packages are what they claim to be, for somebody who has only the files and the public key."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from pipeline import evidence, files, package, provenance, sbom, seal, signing
from pipeline.download import AbsentError, download, is_url
from pipeline.errors import FailureError, UsageError
from pipeline.evidence import Kind
from pipeline.signing import Keyring, Status

_MAX_PAPER = 16 << 20
_MAX_FILE = 4 << 30


class VerificationError(FailureError):
    """Something that was verified is not what it claims to be."""


@dataclass(frozen=True)
class Row:
    """One line of the table: what was looked at, whether it is as it should be, and what was found."""

    item: str
    fine: bool
    found: str


def render(rows: Sequence[Row]) -> str:
    """Render rows as text for people."""
    width = max((len(row.item) for row in rows), default=0)
    return "\n".join(f"  {'ok ' if row.fine else 'BAD'}  {row.item:<{width}}  {row.found}" for row in rows)


def verify(path: Path, keys: Keyring) -> list[Row]:
    """Verify a package file or a build's folder; raises UsageError where there is neither."""
    if path.is_dir():
        return list(_folder(path, keys))
    if path.is_file():
        return list(_package(path, keys))
    raise UsageError(f"There is no {path} to verify.")


def obtain(url: str, folder: Path) -> Path:
    """Download a package with its signature, or what a build's ``SHA256SUMS`` lists where the URL ends in /.

    Returns what `verify` takes. Raises AbsentError, and SealError for a table of contents that is none.
    """
    if not url.endswith("/"):
        name = unquote(urlsplit(url).path.rpartition("/")[2]) or "package"
        with contextlib.suppress(AbsentError):  # its absence is a row of the table
            download(f"{url}.sig", folder / f"{name}.sig", _MAX_PAPER)
        return download(url, folder / name, _MAX_FILE)
    download(url + seal.SUMS, folder / seal.SUMS, _MAX_PAPER)
    names = list(seal.read(folder))
    for name in (f"{n}.sig" for n in [seal.SUMS, *(n for n in names if ".pkg.tar" in n)]):
        with contextlib.suppress(AbsentError):
            download(url + quote(name), folder / name, _MAX_PAPER)
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        with contextlib.suppress(AbsentError):
            download(url + quote(name), folder / name, _MAX_FILE)
    return folder


def failures(rows: Iterable[Row]) -> str:
    """Name what is wrong, in one line; empty where nothing is."""
    return "; ".join(f"{row.item}: {row.found}" for row in rows if not row.fine)


def _package(path: Path, keys: Keyring) -> Iterator[Row]:
    signature = path.with_name(f"{path.name}.sig")
    found = keys.verify(path, signature, exact=True)
    yield Row(f"{path.name}.sig", found.status is Status.GOOD, str(found))
    yield _readable(path)
    yield Row(path.name, True, f"SHA-256 {files.sha256(path)}")


def _readable(path: Path) -> Row:
    try:
        info = package.read(path)
    except FailureError as e:
        return Row(path.name, False, e.message)
    return Row(path.name, True, f"package {info.name} {info.version}")


def _folder(folder: Path, keys: Keyring) -> Iterator[Row]:
    signature = keys.verify(folder / seal.SUMS, folder / f"{seal.SUMS}.sig", exact=True)
    yield Row(f"{seal.SUMS}.sig", signature.status is Status.GOOD, str(signature))
    try:
        sums = seal.read(folder)
    except seal.SealError as e:
        yield Row(seal.SUMS, False, e.message)
        return
    hashes = {name: _hash(folder / name) for name in sums}
    wrong = [name for name, sha256 in sums.items() if hashes[name] != sha256]
    for name in wrong:
        yield Row(name, False, "missing" if hashes[name] is None else f"changed: it is not {sums[name]}")
    surplus = [p for p in seal.shipped(folder) if str(p.relative_to(folder)) not in sums]
    for path in surplus:
        yield Row(str(path.relative_to(folder)), False, f"not in {seal.SUMS}")
    yield Row(
        seal.SUMS, not wrong and not surplus, f"{len(sums) - len(wrong)} of {len(sums)} files as listed"
    )
    packages = {name: sha256 for name, sha256 in sums.items() if "/" not in name and ".pkg.tar" in name}
    yield from _packages(folder, packages, keys)
    yield from papers(folder, packages)


def _hash(path: Path) -> str | None:
    try:
        return None if path.is_symlink() else files.sha256(path)
    except OSError:
        return None


def _packages(folder: Path, packages: Mapping[str, str], keys: Keyring) -> Iterator[Row]:
    if not packages:
        yield Row("packages", False, f"none in {seal.SUMS}")
    for name in packages:
        if not (folder / name).is_file():
            continue  # said already
        yield _readable(folder / name)
        found = keys.verify(folder / name, folder / f"{name}.sig", exact=True)
        yield Row(f"{name}.sig", found.status is Status.GOOD, str(found))


def papers(folder: Path, packages: Mapping[str, str]) -> Iterator[Row]:
    """See that what a build's folder says of packages (file names and SHA-256) is about these bytes."""
    yield from statements(folder, packages)
    for kind in Kind:
        item = f"evidence of {kind}"
        try:
            found = evidence.find(folder, packages, kind)
        except evidence.UnprovenError as e:
            yield Row(item, False, e.message)
        else:
            yield Row(item, True, f"{found.summary} ({found.finished:%Y-%m-%d})")


def statements(folder: Path, packages: Mapping[str, str]) -> Iterator[Row]:
    """See that provenance and bill of materials, which a build leaves with its packages, are about these."""
    for name, read in ((provenance.FILE, provenance.subjects), (sbom.FILE, sbom.packages)):
        yield _paper(folder / name, packages, read)


def _paper(path: Path, packages: Mapping[str, str], read: Callable[[bytes], dict[str, str]]) -> Row:
    try:
        with path.open("rb") as file:
            about = read(file.read(_MAX_PAPER + 1))
    except FileNotFoundError:
        return Row(path.name, False, "missing")
    except FailureError as e:
        return Row(path.name, False, e.message)
    except OSError as e:
        return Row(path.name, False, e.strerror or str(e))
    if about != dict(packages):
        other = sorted(about.items() ^ packages.items())[0][0]
        return Row(path.name, False, f"about other bytes of {other}")
    return Row(path.name, True, f"about these {len(packages)} packages")


def table(word: str, key_files: Sequence[Path], own_key: str = "", *, unsigned: bool = False) -> str:
    """Verify a path or URL and return the table for people.

    ``own_key`` is the fingerprint of a key in the user's own keyring that counts too. Raises
    VerificationError, after which the table is in its hint, where something is wrong.
    """
    with (
        tempfile.TemporaryDirectory(prefix="verify-") as name,
        signing.keyring(*key_files, own=own_key) as keys,
    ):
        path = obtain(word, Path(name)) if is_url(word) else Path(word).expanduser()
        rows = verify(path, keys)
    if unsigned:
        rows = [replace(row, fine=row.fine or row.found == Status.MISSING) for row in rows]
    if wrong := failures(rows):
        raise VerificationError(f"{word} is not what it claims to be: {wrong}", hint="\n" + render(rows))
    return f"{word}\n{render(rows)}"
