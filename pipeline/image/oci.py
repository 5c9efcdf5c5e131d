"""A root file system as a docker image with fixed metadata, so that its id is the same everywhere.

Format: Docker Image Specification v1.2, "Combined Image JSON + Filesystem Changeset Format"; the image
id is the SHA-256 of the configuration's bytes.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

_CHUNK = 1 << 20


@dataclass(frozen=True)
class DockerImage:
    """What fixes a docker image: the hash of its only layer's tar, and when its content dates from."""

    layer_sha256: str
    source_date_epoch: int

    @property
    def config(self) -> bytes:
        """The image's configuration, byte for byte."""
        created = datetime.fromtimestamp(self.source_date_epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return msgspec.json.encode(
            {
                "architecture": "amd64",
                "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
                "created": created,
                "history": [{"created": created, "created_by": "xen-aur-pipeline"}],
                "os": "linux",
                "rootfs": {"diff_ids": [f"sha256:{self.layer_sha256}"], "type": "layers"},
            },
            order="sorted",
        )

    @property
    def id(self) -> str:
        """The image id that an engine gives it, ``sha256:`` and 64 hexadecimal digits."""
        return "sha256:" + hashlib.sha256(self.config).hexdigest()

    def archive(self, layer: Path) -> Iterator[bytes]:
        """Yield the archive that ``docker load`` takes, with ``layer`` as its only layer."""
        config_name = self.id.removeprefix("sha256:") + ".json"
        layer_name = f"{self.layer_sha256}/layer.tar"
        manifest = [{"Config": config_name, "Layers": [layer_name], "RepoTags": None}]
        yield from _member(config_name, self.config)
        yield _header(layer_name, layer.stat().st_size)
        yield from _content(layer)
        yield from _member("manifest.json", msgspec.json.encode(manifest))
        yield b"\0" * (2 * tarfile.BLOCKSIZE)


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
