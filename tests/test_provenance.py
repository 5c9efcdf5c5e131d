"""Provenance and bill of materials: what strangers rebuild from and search for flaws in."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import files, provenance, release, sbom
from pipeline.image.assembly import Image
from pipeline.image.lock import read_lock
from pipeline.provenance import Origin, ProvenanceError
from pipeline.release import RELEASES
from pipeline.sbom import SbomError
from pipeline.source import GitSource, Source
from pipeline.store import Store

PACKAGES = {"xen-4.2.5-1-x86_64.pkg.tar.xz": "a" * 64, "xen-docs-4.2.5-1-any.pkg.tar.xz": "b" * 64}
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
WITHOUT = ("stubdom", "qemu-traditional")


def image(name: str) -> Image:
    return Image(name, read_lock(name), Store(Path("/nonexistent")))


@pytest.fixture(scope="module")
def statement() -> bytes:
    return provenance.render(
        Origin(
            packages=PACKAGES,
            release=release.read("4.2", WITHOUT),
            release_file_sha256=files.sha256(RELEASES / "4.2.toml"),
            build_id="0123456789abcdef",
            image=image("debian-bullseye"),
            packaging=image("debian-bookworm"),
            engine="bubblewrap",
            pipeline="c" * 40,
            started=NOW,
            finished=NOW,
        )
    )


@pytest.fixture(scope="module")
def bom() -> bytes:
    images = (image("debian-bullseye"), image("debian-bookworm"))
    return sbom.render(release.read("4.2", WITHOUT), "0123456789abcdef", images, PACKAGES)


def test_the_statement_names_all_that_a_rebuild_needs(statement: bytes) -> None:
    """Or a stranger would have to guess what the package was made from."""
    assert provenance.subjects(statement) == PACKAGES
    definition = json.loads(statement)["predicate"]["buildDefinition"]
    found = {part["name"]: part["digest"] for part in definition["resolvedDependencies"]}
    wanted = release.read("4.2", WITHOUT)
    assert {source.name: {"gitCommit": source.commit} for source in wanted.git}.items() <= found.items()
    assert found["release"] == {"sha256": files.sha256(RELEASES / "4.2.toml")}
    assert f"sha256:{found['image']['sha256']}" == read_lock("debian-bullseye").image_id
    assert {"image-lock", "packaging-image", "packaging-image-lock"} <= found.keys()
    assert definition["externalParameters"]["without"] == sorted(WITHOUT)
    assert not {"newlib-1.16.0.tar.gz", "qemu-xen-traditional"} & found.keys()


def test_the_bill_names_what_is_bundled_with_versions_and_licences(bom: bytes) -> None:
    """Or nobody could tell whether a flaw in SeaBIOS or qemu is in the package."""
    assert sbom.packages(bom) == PACKAGES
    parts = {part["name"]: part for part in json.loads(bom)["components"]}
    for name in ("xen", "qemu-xen", "seabios", "ipxe"):
        assert parts[name]["scope"] == "required"
        assert parts[name]["version"]
        assert parts[name]["licenses"]
        assert parts[name]["purl"].startswith(f"pkg:generic/{name}@{parts[name]['version']}?")
    assert parts["gcc-10"]["scope"] == "excluded"
    assert parts["gcc-10"]["purl"].startswith("pkg:deb/debian/gcc-10@")
    assert "newlib" not in parts


def test_the_whole_of_an_old_release_is_in_the_bill() -> None:
    """Stub domains bring a C library and more of their own, each with flaws of its own."""
    parts = {
        p["name"]: p for p in json.loads(sbom.render(release.read("4.2"), "0", (), PACKAGES))["components"]
    }
    for name, version in (("newlib", "1.16.0"), ("zlib", "1.2.3"), ("lwip", "1.3.0"), ("grub", "0.97")):
        assert parts[name]["version"] == version
        assert parts[name]["licenses"]
    assert {"xen", "qemu-xen", "qemu-xen-traditional", "seabios", "ipxe", "pciutils"} <= parts.keys()


def test_every_source_of_every_release_has_a_version_and_a_licence() -> None:
    """Or the bill of materials of a new release would have a hole."""
    for name in release.known():
        found = release.read(name)
        sources: list[Source | GitSource] = [*found.sources, *found.git]
        for source in sources:
            assert source.version, (name, source.name)
            assert source.license, (name, source.name)


def test_the_same_build_has_the_same_bill(bom: bytes) -> None:
    """Two maintainers compare their builds by it."""
    images = (image("debian-bullseye"), image("debian-bookworm"))
    assert sbom.render(release.read("4.2", WITHOUT), "0123456789abcdef", images, PACKAGES) == bom


def edited(data: bytes, edit: Callable[[dict[str, object]], object]) -> bytes:
    value = json.loads(data)
    edit(value)
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: s.update(subject=[]),
        lambda s: s["subject"][0].pop("digest"),
        lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"),
        lambda s: s.update(predicateType="https://slsa.dev/provenance/v0.2"),
        lambda s: s.update(predicate={}),
        lambda s: s["subject"][0].pop("name"),
        lambda s: s["subject"][0]["digest"].update(sha256="f" * 63),
        lambda s: s["subject"].append(s["subject"][0]),
        lambda s: s["predicate"].update(surprise=1),
        lambda s: s["predicate"].pop("buildDefinition"),
        lambda s: s["predicate"].pop("runDetails"),
        lambda s: s["predicate"]["runDetails"].pop("builder"),
        lambda s: s["predicate"]["runDetails"]["metadata"].update(startedOn="yesterday"),
        lambda s: s["predicate"]["buildDefinition"].pop("buildType"),
        lambda s: s["predicate"]["buildDefinition"].pop("externalParameters"),
        lambda s: s["predicate"]["buildDefinition"].pop("resolvedDependencies"),
        lambda s: s["predicate"]["buildDefinition"]["resolvedDependencies"][0].pop("digest"),
        lambda s: s["predicate"]["buildDefinition"].update(buildType=7),
        lambda s: s.update(more=1),
    ],
)
def test_a_statement_of_another_shape_is_refused(
    statement: bytes, edit: Callable[[dict[str, object]], object]
) -> None:
    """Other tools that read SLSA would refuse it as well."""
    with pytest.raises(ProvenanceError):
        provenance.subjects(edited(statement, edit))


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: s.update(bomFormat="SPDX"),
        lambda s: s["metadata"].pop("component"),
        lambda s: s["metadata"]["component"].update(type="thing"),
        lambda s: s["metadata"]["component"]["components"][0].update(hashes=[]),
        lambda s: s["components"].append({"name": "x"}),
    ],
)
def test_a_bill_of_another_shape_is_refused(bom: bytes, edit: Callable[[dict[str, object]], object]) -> None:
    """Other tools that read CycloneDX would refuse it as well."""
    with pytest.raises(SbomError):
        sbom.packages(edited(bom, edit))


def test_the_commit_that_made_a_build_is_read(statement: bytes) -> None:
    """A stranger whose checkout is newer is told which one to take."""
    assert provenance.pipeline_commit(statement) == "c" * 40
    assert provenance.pipeline_commit(statement.replace(b"c" * 40, b"unknown")) == ""
    assert provenance.pipeline_commit(b"[]") == ""


@settings(deadline=None)  # the first example loads the schema
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_the_file_holds_ends_in_a_sentence(data: bytes) -> None:
    """They come from other machines; a traceback would tell a user nothing."""
    with pytest.raises(ProvenanceError):
        provenance.subjects(data)
    with pytest.raises(SbomError):
        sbom.packages(data)


def test_huge_and_deep_files_are_refused() -> None:
    """They would exhaust the memory or the stack of a careless reader."""
    for data in (b" " * (17 << 20), b"[" * 100_000, b'{"a":' * 50_000):
        with pytest.raises(ProvenanceError):
            provenance.subjects(data)
        with pytest.raises(SbomError):
            sbom.packages(data)
