"""Images as files, for machines that can reach no archive: written here, verified there."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path
from typing import IO, Annotated

import msgspec

from pipeline import files, log
from pipeline.errors import IntegrityError, UsageError
from pipeline.image.assembly import Image
from pipeline.image.lock import read_lock
from pipeline.image.oci import MANIFEST
from pipeline.store import BLOCK, Store

_SMALL = 1 << 20


class _Loaded(msgspec.Struct, frozen=True):
    """An entry of manifest.json, as far as it counts here."""

    config: Annotated[str, msgspec.Meta(max_length=200)] = msgspec.field(name="Config")
    layers: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=1)] = msgspec.field(
        name="Layers"
    )


def write(image: Image, path: Path) -> None:
    """Write an image to a file that `read` and ``docker load`` take; it unpacks to an OCI image layout.

    Raises IntegrityError where the image's tar is damaged or gone.
    """
    layer = image.layer()
    if path.is_dir():
        raise UsageError(f"{path} is a folder.", hint="--export wants the name of a file.")
    total = layer.stat().st_size
    with files.replacing(path) as file, log.bytes_bar(path.name, total) as moved:
        for block in image.docker.archive(layer):
            file.write(block)
            moved(len(block))


def read(name: str, path: Path, store: Store) -> None:
    """Take image ``name``'s tar out of a file and put it into the store.

    The file may come from `write` or from ``docker save``, and is not trusted: its layer must be the one
    that the lock names. Raises UsageError where it is no image, and IntegrityError where it is another one.
    """
    lock = read_lock(name)
    remedy = f"./inv image {name} --export FILE writes one."
    try:
        with path.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            (loaded,) = msgspec.json.decode(_small(tar, MANIFEST), type=list[_Loaded])
            config = _small(tar, loaded.config)
            if f"sha256:{hashlib.sha256(config).hexdigest()}" != lock.image_id:
                raise IntegrityError(f"{path} holds another image than {name} as it is locked.", hint=remedy)
            _take(_member(tar, loaded.layers[0]), name, lock.rootfs_sha256, store)
    except (tarfile.TarError, ValueError, LookupError) as e:
        raise UsageError(f"{path} holds no image.", hint=remedy) from e
    except OSError as e:
        raise UsageError(f"{path} cannot be read: {e.strerror or e}.", hint=remedy) from e


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    file = tar.extractfile(tar.getmember(name))
    if file is None:
        raise LookupError(name)
    return file


def _small(tar: tarfile.TarFile, name: str) -> bytes:
    data = _member(tar, name).read(_SMALL + 1)
    if len(data) > _SMALL:
        raise ValueError(name)
    return data


def _take(layer: IO[bytes], name: str, sha256: str, store: Store) -> None:
    with store.writer() as writer:
        while block := layer.read(BLOCK):
            writer.write(block)
        try:
            writer.commit(sha256)
        except IntegrityError as e:
            raise IntegrityError(f"The file's layer is not that of image {name}. {e.message}") from e
