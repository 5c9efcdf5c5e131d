"""What is in the packages and what made them: a bill of materials in CycloneDX 1.6.

Format: https://cyclonedx.org/docs/1.6/json/ (ECMA-424).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping

from cyclonedx.exception import CycloneDxException
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from pipeline.errors import FailureError
from pipeline.image.assembly import Image
from pipeline.release import Release
from pipeline.source import GitSource, Source

FILE = "sbom.cdx.json"
"""Its name in a build's folder."""

_MAX_SIZE = 16 << 20


class SbomError(FailureError):
    """A file is no bill of materials, or not of these packages."""


def render(release: Release, build_id: str, images: tuple[Image, ...], packages: Mapping[str, str]) -> bytes:
    """Render a build's bill of materials as JSON, checked against the format's schema.

    ``packages`` maps file names to SHA-256. The same build always gives the same bytes.
    """
    subject = Component(
        name="xen",
        version=f"{release.version}-{release.revision}",
        type=ComponentType.APPLICATION,
        bom_ref="xen",
        components=[_package(name, sha256) for name, sha256 in sorted(packages.items())],
    )
    components = [*map(_file, release.sources), *map(_commit, release.git)]
    tools = {tool.bom_ref.value: tool for image in images for tool in _tools(image)}
    bom = Bom(
        # The library would take the time and a random number, and no two would be the same.
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"xen-aur-pipeline/{build_id}"),
        components=[*components, *tools.values()],
        metadata=BomMetaData(component=subject),
    )
    bom.register_dependency(subject, components)
    data = json.loads(JsonV1Dot6(bom).output_as_string())
    data["metadata"].pop("timestamp", None)
    text = json.dumps(data, indent=1, sort_keys=True) + "\n"
    _validate(text)
    return text.encode()


def _validate(text: str) -> None:
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error is not None:
        message = " ".join(str(getattr(error.data, "message", error.data)).split())
        raise SbomError(f"The bill of materials breaks the format's schema: {message[:300]}.")


def _package(name: str, sha256: str) -> Component:
    return Component(name=name, type=ComponentType.FILE, bom_ref=f"package:{name}", hashes=[_hash(sha256)])


def _hash(sha256: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=sha256)


def _file(source: Source) -> Component:
    urls = [u for u in source.urls if not u.startswith("debian:")]
    return _component(source, source.name, source.version, [_hash(source.sha256)], urls)


def _commit(source: GitSource) -> Component:
    return _component(source, source.name, source.version or source.commit, [], list(source.urls))


def _component(
    source: Source | GitSource, name: str, version: str | None, hashes: list[HashType], urls: list[str]
) -> Component:
    kind = ExternalReferenceType.VCS if isinstance(source, GitSource) else ExternalReferenceType.DISTRIBUTION
    return Component(
        name=name,
        version=version,
        type=ComponentType.APPLICATION,
        bom_ref=f"source:{name}",
        hashes=hashes,
        licenses=[LicenseExpression(source.license)] if source.license else [],
        external_references=[ExternalReference(type=kind, url=XsUri(url)) for url in urls],
        scope=ComponentScope.REQUIRED,
    )


def _tools(image: Image) -> Iterator[Component]:
    """What was installed where the build ran, and is not part of the packages."""
    for package in image.lock.packages:
        yield Component(
            name=package.name,
            version=package.version,
            type=ComponentType.APPLICATION,
            bom_ref=f"tool:{package.name}@{package.version}:{package.sha256[:8]}",
            hashes=[_hash(package.sha256)],
            scope=ComponentScope.EXCLUDED,
        )


def packages(data: bytes) -> dict[str, str]:
    """Read a bill of materials that may come from anywhere: the packages it is of, file name to SHA-256.

    Raises SbomError for anything that is not valid CycloneDX 1.6.
    """
    if len(data) > _MAX_SIZE:
        raise SbomError("The bill of materials is larger than any.")
    try:
        text = data.decode()
        _validate(text)
        found = json.loads(text)["metadata"]["component"]["components"]
        return {part["name"]: part["hashes"][0]["content"] for part in found}
    except (ValueError, LookupError, TypeError, CycloneDxException, RecursionError) as e:
        raise SbomError(f"The bill of materials is damaged: {' '.join(str(e).split())[:300]}.") from e
