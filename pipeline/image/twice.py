"""An image assembled twice from nothing, and what differs from one time to the other."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline import log
from pipeline.errors import FailureError, IntegrityError
from pipeline.image import assembly
from pipeline.image.assembly import Image
from pipeline.image.rootfs import Rootfs
from pipeline.mirrors import Mirrors
from pipeline.scratch import scratch

_SHOWN = 30


class UnrepeatableError(FailureError):
    """An image came out differently."""


@dataclass(frozen=True)
class _File:
    """What a tar says of one file."""

    kind: str
    mode: str
    owner: str
    time: float
    size: int
    content: str


def verify(image: Image, mirrors: Mirrors, *, jobs: int) -> str:
    """Assemble an image twice, and return the SHA-256 of the tar, which both times was the locked one.

    Raises UnrepeatableError listing the files that differ, and what differs in them.
    """
    with scratch(image.store.root / "scratch", "verify") as folder:
        first, second = (_assemble(image, mirrors, folder, jobs, part) for part in ("first", "second"))
        found = first.sha256()
        if found != second.sha256():
            tars = first.tar(folder / "first.tar"), second.tar(folder / "second.tar")
            raise UnrepeatableError(
                f"Image {image.name} is not the same when it is assembled twice.",
                hint=_listed(differences(*tars)),
            )
        if found != image.lock.rootfs_sha256:
            hint = _listed(_from_locked(image, first.tar(folder / "first.tar")))
            raise UnrepeatableError(
                f"Image {image.name} is the same twice, but not the one of its lock: its tar has the SHA-256 "
                f"{found} instead of {image.lock.rootfs_sha256}.",
                hint=hint,
            )
    return found


def _assemble(image: Image, mirrors: Mirrors, folder: Path, jobs: int, part: str) -> Rootfs:
    (folder / part).mkdir()
    with log.step(f"Assembling {image.name}, the {part} time"):
        return assembly.assemble(image, mirrors, folder / part, jobs=jobs)


def _from_locked(image: Image, tar: Path) -> list[str]:
    try:
        return differences(image.layer(), tar)
    except IntegrityError as e:
        return [
            f"The locked one is not at hand to compare with. {e.message}",
            f"A host that has it writes it (./inv image {image.name} --export FILE), and this one reads it "
            f"(./inv image {image.name} --import FILE --verify).",
        ]


def _listed(lines: list[str]) -> str:
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n".join([*lines[:_SHOWN], *more] or ["The tars hold the same files, in another order or form."])


def differences(first: Path, second: Path) -> list[str]:
    """Name the files on which two tars disagree, each with what differs: ``/etc/x: content, time``."""
    one, other = dict(_files(first)), dict(_files(second))
    lines = []
    for path in sorted({*one, *other}):
        before, after = one.get(path), other.get(path)
        if before is None or after is None:
            lines.append(f"{path}: only in the {'second' if before is None else 'first'}")
        elif before != after:
            fields = (f for f in before.__dataclass_fields__ if getattr(before, f) != getattr(after, f))
            lines.append(f"{path}: {', '.join(fields)}")
    return lines


def _files(path: Path) -> Iterator[tuple[str, _File]]:
    with tarfile.open(path, "r:") as tar:
        for info in tar:
            content = info.linkname
            if info.isreg() and (file := tar.extractfile(info)) is not None:
                content = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
            owner = f"{info.uid}:{info.gid}"
            kind = info.type.decode(errors="replace")
            described = _File(kind, f"{info.mode:o}", owner, info.mtime, info.size, content)
            yield "/" + info.name.removeprefix("./"), described
