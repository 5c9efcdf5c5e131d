"""What is in the packages and what made them: a bill of materials in CycloneDX 1.6.

Format: https://cyclonedx.org/docs/1.6/json/ (ECMA-424).
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Iterator, Mapping

from cyclonedx.exception import CycloneDxException
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from packageurl import PackageURL

from pipeline.errors import FailureError
from pipeline.image.assembly import Image
from pipeline.image.lock import LockedDeb
from pipeline.release import Release
from pipeline.source import GitSource, Source

FILE = "sbom.cdx.json"
"""Its name in a build's folder."""

_MAX_SIZE = 16 << 20
# Of a source: "newlib-1.16.0", "xen_4.17.5+72-g01140da4e8.orig.tar.xz".
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9+]*(?:[-_.][A-Za-z][A-Za-z0-9+]*)*(?=[-_.]v?[0-9])")


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
    # jsonschema would load a grammar of IRIs, a second at every start, to say which URLs are none: those of
    # sources were looked at when their release file was read. None stands for a module that is not installed.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    from cyclonedx.validation.json import JsonStrictValidator

    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error is not None:
        message = " ".join(str(getattr(error.data, "message", error.data)).split())
        raise SbomError(f"The bill of materials breaks the format's schema: {message[:300]}.")


def _package(name: str, sha256: str) -> Component:
    return Component(name=name, type=ComponentType.FILE, bom_ref=f"package:{name}", hashes=[_hash(sha256)])


def _hash(sha256: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=sha256)


def _file(source: Source) -> Component:
    urls = [url for url in source.urls if not url.startswith("debian:")]
    where = {"download_url": urls[0]} if urls else {"file_name": source.name}
    return Component(
        name=_name(source.name),
        version=source.version,
        type=ComponentType.APPLICATION,
        bom_ref=f"source:{source.name}",
        hashes=[_hash(source.sha256)],
        licenses=_licenses(source.license),
        purl=PackageURL(
            "generic",
            name=_name(source.name),
            version=source.version,
            qualifiers={"checksum": f"sha256:{source.sha256}", **where},
        ),
        external_references=[_reference(ExternalReferenceType.DISTRIBUTION, url) for url in urls],
        scope=ComponentScope.REQUIRED,
    )


def _commit(source: GitSource) -> Component:
    version = source.version or source.commit
    return Component(
        name=_name(source.name),
        version=version,
        type=ComponentType.APPLICATION,
        bom_ref=f"source:{source.name}",
        licenses=_licenses(source.license),
        purl=PackageURL(
            "generic",
            name=_name(source.name),
            version=version,
            qualifiers={"vcs_url": f"git+{source.urls[0]}@{source.commit}"},
        ),
        external_references=[_reference(ExternalReferenceType.VCS, url) for url in source.urls],
        scope=ComponentScope.REQUIRED,
    )


def _name(of_source: str) -> str:
    """What a source is called without its version."""
    found = _NAME.match(of_source)
    return found[0] if found else of_source


def _licenses(expression: str | None) -> list[LicenseExpression]:
    return [LicenseExpression(expression)] if expression else []


def _reference(kind: ExternalReferenceType, url: str) -> ExternalReference:
    return ExternalReference(type=kind, url=XsUri(url))


def _tools(image: Image) -> Iterator[Component]:
    """What was installed where the build ran, and is not part of the packages."""
    for package in image.lock.packages:
        if isinstance(package, LockedDeb):
            kind, vendor, arch = "deb", "debian", package.url.rpartition("_")[2].removesuffix(".deb")
        else:
            kind, vendor, arch = "alpm", "arch", package.file.split(".pkg.tar")[0].rpartition("-")[2]
        yield Component(
            name=package.name,
            version=package.version,
            type=ComponentType.APPLICATION,
            bom_ref=f"tool:{package.name}@{package.version}:{package.sha256[:8]}",
            hashes=[_hash(package.sha256)],
            purl=PackageURL(kind, vendor, package.name, package.version, qualifiers={"arch": arch}),
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
