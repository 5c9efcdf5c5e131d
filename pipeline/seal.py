"""A build folder's table of contents, ``SHA256SUMS``, and the signatures that make it more than a claim.

Format: sha256sum(1), text mode: ``sha256sum --check SHA256SUMS`` and gpg are all that a stranger needs.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline import files, signing
from pipeline.errors import FailureError

SUMS = "SHA256SUMS"

# What leaves the machine; logs, screenshots and reports stay where the build was made.
_PATTERNS = ("*.pkg.tar.*", "*.json", "aur/*", "evidence/*.json")
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9@._+:~-]+(?:/[A-Za-z0-9@._+:~-]+)?)")
_MAX_SIZE = 1 << 20


class SealError(FailureError):
    """A table of contents is not one."""


def shipped(folder: Path) -> list[Path]:
    """The files of a build folder that go to other machines, without the seal and signatures."""
    found = {path for pattern in _PATTERNS for path in folder.glob(pattern)}
    return sorted(
        path for path in found if path.suffix != ".sig" and path.is_file() and not path.is_symlink()
    )


def signatures(folder: Path) -> list[Path]:
    """The seal of a build folder and the signatures that there are."""
    seal = [folder / SUMS, folder / f"{SUMS}.sig"]
    return [path for path in [*seal, *sorted(folder.glob("*.pkg.tar.*.sig"))] if path.is_file()]


def seal(
    folder: Path,
    known: Mapping[str, str],
    key: str = "",
    *,
    anew: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Path:
    """Write a build folder's ``SHA256SUMS``; with a key, sign it and each package that is not signed yet.

    ``known`` maps file names to a SHA-256 that was verified just now. ``anew`` signs again what is signed.
    ``check`` raises where the folder must not be sealed; it is asked when the table is to be another one.
    Raises what that and signing.signature raise; then all is as it was.
    """
    paths = shipped(folder)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        sums = pool.map(lambda path: known.get(path.name) or files.sha256(path), paths)
        text = "".join(
            f"{sha256}  {path.relative_to(folder)}\n" for sha256, path in zip(sums, paths, strict=True)
        )
    target = folder / SUMS
    stale = not target.is_file() or target.read_text() != text
    if stale:
        check()
    made = _sign(target, text, paths, key, anew=stale or anew) if key else {}
    if stale:
        for path in signatures(folder):
            path.unlink()  # of other bytes
        files.write_text(target, text)
    for path, signature in made.items():
        files.write_bytes(path, signature)
    return target


def _sign(target: Path, text: str, paths: list[Path], key: str, *, anew: bool) -> dict[Path, bytes]:
    """Make the signatures that are to be: all, or those that are not there."""
    made = {}
    with tempfile.TemporaryDirectory(prefix="seal-") as name:
        table = Path(name) / SUMS
        table.write_text(text)
        for path in [table, *(p for p in paths if ".pkg.tar" in p.name)]:
            signature = (target if path is table else path).with_name(f"{path.name}.sig")
            # A signature holds its time: made anew, two bundles of one build would differ.
            if anew or not signature.is_file():
                made[signature] = signing.signature(path, key)
    return made


def read(folder: Path) -> dict[str, str]:
    """Read a folder's ``SHA256SUMS``: paths below it to SHA-256; raises SealError."""
    try:
        with (folder / SUMS).open("rb") as file:
            return parse(file.read(_MAX_SIZE + 1))
    except FileNotFoundError as e:
        raise SealError(
            f"{folder} has no {SUMS}.", hint="./inv sign makes it where the build was made."
        ) from e


def parse(data: bytes) -> dict[str, str]:
    """Read a ``SHA256SUMS`` that may come from anywhere; raises SealError."""
    if len(data) > _MAX_SIZE:
        raise SealError(f"The {SUMS} is larger than any.")
    sums: dict[str, str] = {}
    lines = data.decode(errors="replace").split("\n")
    if lines.pop() or not lines:
        raise SealError(f"The {SUMS} is incomplete.")
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None or match[2] in sums or {".", ".."} & set(match[2].split("/")):
            raise SealError(f"Line {number} of the {SUMS} is none that the pipeline writes.")
        sums[match[2]] = match[1]
    return sums
