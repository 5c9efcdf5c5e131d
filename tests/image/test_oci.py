"""The docker form of an image: the same bytes for everybody."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

from pipeline.image.oci import DockerImage


def test_the_archive_is_what_docker_load_takes(tmp_path: Path) -> None:
    """A malformed archive shows on the day that an engine becomes strict about it."""
    layer = tmp_path / "layer"
    layer.write_bytes(b"x" * 1000)
    image = DockerImage(hashlib.sha256(layer.read_bytes()).hexdigest(), 1_700_000_000)
    data = b"".join(image.archive(layer))
    assert data == b"".join(image.archive(layer))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        contents = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
    (manifest,) = json.loads(contents["manifest.json"])
    config = contents[manifest["Config"]]
    assert image.id == "sha256:" + hashlib.sha256(config).hexdigest()
    assert json.loads(config)["created"] == "2023-11-14T22:13:20Z"
    (name,) = manifest["Layers"]
    assert json.loads(config)["rootfs"]["diff_ids"] == [
        "sha256:" + hashlib.sha256(contents[name]).hexdigest()
    ]


def test_other_bytes_or_times_have_another_id() -> None:
    """Two images that differ must never be taken for each other."""
    ids = {DockerImage(layer * 64, epoch).id for layer in "ab" for epoch in (1, 2)}
    assert len(ids) == 4


def test_the_archive_unpacks_to_an_oci_layout(tmp_path: Path) -> None:
    """Every blob is what its name and its descriptor say, from the index down to the layer."""
    layer = tmp_path / "layer"
    layer.write_bytes(b"y" * 1000)
    image = DockerImage(hashlib.sha256(layer.read_bytes()).hexdigest(), 1)
    with tarfile.open(fileobj=io.BytesIO(b"".join(image.archive(layer)))) as tar:
        contents = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
    assert json.loads(contents["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}

    def blob(descriptor: dict[str, str | int]) -> bytes:
        digest = str(descriptor["digest"])
        data = contents[f"blobs/{digest.replace(':', '/')}"]
        assert descriptor["size"] == len(data)
        assert digest == "sha256:" + hashlib.sha256(data).hexdigest()
        return data

    (entry,) = json.loads(contents["index.json"])["manifests"]
    manifest = json.loads(blob(entry))
    assert manifest["config"]["digest"] == image.id
    assert blob(manifest["config"]) == image.config
    (described,) = manifest["layers"]
    assert blob(described) == layer.read_bytes()
