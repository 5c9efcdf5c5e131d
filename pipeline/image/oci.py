"""A root file system as a docker image with fixed metadata, so that its id is the same everywhere.

One archive is of two formats at once: the OCI Image Layout (OCI Image Format Specification v1.0,
"image-layout.md") once it is unpacked, and with ``manifest.json`` what `docker load` takes (Docker Image
Specification v1.2, "Combined Image JSON + Filesystem Changeset Format"). The image id is the SHA-256 of the
configuration's bytes.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

MANIFEST = "manifest.json"
"""The member of an archive that says which others are the configuration and the layers."""

_CHUNK = 1 << 20
_MEDIA = "application/vnd.oci.image"


@dataclass(frozen=True)
class DockerImage:
    """What fixes a docker image: the hash of its only layer's tar, and when its content dates from."""

    layer_sha256: str
    source_date_epoch: int

    @property
    def config(self) -> bytes:
        """The image's configuration, byte for byte."""
        created = datetime.fromtimestamp(self.source_date_epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return _json(
            {
                "architecture": "amd64",
                "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
                "created": created,
                "history": [{"created": created, "created_by": "xen-aur-pipeline"}],
                "os": "linux",
                "rootfs": {"diff_ids": [f"sha256:{self.layer_sha256}"], "type": "layers"},
            }
        )

    @property
    def id(self) -> str:
        """The image id that an engine gives it, ``sha256:`` and 64 hexadecimal digits."""
        return f"sha256:{_sha256(self.config)}"

    def archive(self, layer: Path) -> Iterator[bytes]:
        """Yield the archive that ``docker load`` takes, with ``layer`` as its only layer.

        The small members come first, so that a reader knows what the layer must be before it comes.
        """
        size = layer.stat().st_size
        manifest = _json(
            {
                "config": _descriptor("config.v1+json", _sha256(self.config), len(self.config)),
                "layers": [_descriptor("layer.v1.tar", self.layer_sha256, size)],
                "mediaType": f"{_MEDIA}.manifest.v1+json",
                "schemaVersion": 2,
            }
        )
        index = {
            "manifests": [_descriptor("manifest.v1+json", _sha256(manifest), len(manifest))],
            "mediaType": f"{_MEDIA}.index.v1+json",
            "schemaVersion": 2,
        }
        loaded = {
            "Config": _blob(_sha256(self.config)),
            "Layers": [_blob(self.layer_sha256)],
            "RepoTags": None,
        }
        yield from _member("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        yield from _member("index.json", _json(index))
        yield from _member(MANIFEST, _json([loaded]))
        yield from _member(_blob(_sha256(manifest)), manifest)
        yield from _member(_blob(_sha256(self.config)), self.config)
        yield _header(_blob(self.layer_sha256), size)
        yield from _content(layer)
        yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _json(value: object) -> bytes:
    return msgspec.json.encode(value, order="sorted")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _blob(sha256: str) -> str:
    return f"blobs/sha256/{sha256}"


def _descriptor(kind: str, sha256: str, size: int) -> dict[str, str | int]:
    return {"digest": f"sha256:{sha256}", "mediaType": f"{_MEDIA}.{kind}", "size": size}


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return b"\0" * (-size % tarfile.BLOCKSIZE)


def _member(name: str, data: bytes) -> Iterator[bytes]:
    yield _header(name, len(data))
    yield data + _padding(len(data))


def _content(path: Path) -> Iterator[bytes]:
    size = 0
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            size += len(block)
            yield block
    yield _padding(size)
