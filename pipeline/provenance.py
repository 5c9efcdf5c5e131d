"""Where packages come from: an in-toto statement with SLSA's build provenance.

Formats: https://in-toto.io/Statement/v1, https://slsa.dev/spec/v1.0/provenance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementPb

from pipeline.errors import FailureError
from pipeline.image.assembly import Image
from pipeline.release import Release
from pipeline.source import GitSource, Source

FILE = "provenance.json"
"""Its name in a build's folder."""

PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:xen-aur-pipeline:build:v1"
"""Names this kind of build: a release file, a recipe and an image, by `inv build`."""

_REQUIRED = (
    *("buildDefinition.buildType", "buildDefinition.externalParameters", "runDetails.builder.id"),
    # Of SLSA's optional fields, those without which nobody could build again.
    *(
        "buildDefinition.resolvedDependencies",
        "runDetails.metadata.startedOn",
        "runDetails.metadata.finishedOn",
    ),
)
_DIGITS = {"sha256": 64, "gitCommit": 40}

_MAX_SIZE = 4 << 20


class ProvenanceError(FailureError):
    """A file is no provenance, or not of these packages."""


@dataclass(frozen=True)
class Origin:
    """All that a build was made from and by.

    ``packages`` maps file names to SHA-256; ``started`` and ``finished`` are times in UTC.
    """

    packages: Mapping[str, str]
    release: Release
    release_file_sha256: str
    build_id: str
    image: Image
    packaging: Image
    engine: str
    pipeline: str
    started: datetime
    finished: datetime


def render(origin: Origin) -> bytes:
    """Render the statement about a build's packages as JSON; the library has checked it."""
    subjects = [
        ResourceDescriptor(name=name, digest={"sha256": sha256}).pb
        for name, sha256 in sorted(origin.packages.items())
    ]
    predicate = provenance_pb2.Provenance()
    # ParseDict is strict: a key that SLSA's schema does not know is an error.
    json_format.ParseDict(_predicate(origin), predicate)
    statement = Statement(subjects, PREDICATE_TYPE, json_format.MessageToDict(predicate))
    statement.validate()
    text = json.dumps(json_format.MessageToDict(statement.pb), indent=2, sort_keys=True)
    return text.encode() + b"\n"


def _predicate(origin: Origin) -> dict[str, Any]:
    release = origin.release
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "release": release.name,
                "version": release.version,
                "without": list(release.left_out),
                "command": f"inv build {release.name}",
            },
            "internalParameters": {
                "engine": origin.engine,
                "buildId": origin.build_id,
                "sourceDateEpoch": str(release.source_date_epoch),
            },
            "resolvedDependencies": [
                _dependency("release", f"releases/{release.name}.toml", origin.release_file_sha256),
                *(_file(source) for source in release.sources),
                *(_commit(source) for source in release.git),
                *_image("image", origin.image),
                *_image("packaging-image", origin.packaging),
            ],
        },
        "runDetails": {
            "builder": {"id": BUILD_TYPE, "version": {"pipeline": origin.pipeline}},
            "metadata": {
                "invocationId": origin.build_id,
                "startedOn": _time(origin.started),
                "finishedOn": _time(origin.finished),
            },
        },
    }


def _dependency(name: str, uri: str, sha256: str) -> dict[str, Any]:
    return {"name": name, "uri": uri, "digest": {"sha256": sha256}}


def _file(source: Source) -> dict[str, Any]:
    return _dependency(source.name, source.urls[0], source.sha256)


def _commit(source: GitSource) -> dict[str, Any]:
    return {"name": source.name, "uri": f"git+{source.urls[0]}", "digest": {"gitCommit": source.commit}}


def _image(role: str, image: Image) -> list[dict[str, Any]]:
    return [
        _dependency(role, f"docker:{image.name}", image.id.removeprefix("sha256:")),
        _dependency(f"{role}-lock", f"containers/{image.name}.lock", image.lock_sha256),
    ]


def _time(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def subjects(data: bytes) -> dict[str, str]:
    """Read a statement that may come from anywhere: the packages it is about, file name to SHA-256.

    Raises ProvenanceError for anything but valid provenance of SLSA v1.
    """
    if len(data) > _MAX_SIZE:
        raise ProvenanceError("The provenance is larger than any.")
    try:
        message = json_format.Parse(data, StatementPb())
        Statement.copy_from_pb(message).validate()
        if message.predicate_type != PREDICATE_TYPE:
            raise ValueError(f"a predicate of type {message.predicate_type!r}")
        _check_predicate(json_format.MessageToDict(message.predicate))
        found = {subject.name: _sha256(subject.name, subject.digest["sha256"]) for subject in message.subject}
        if "" in found or len(found) != len(message.subject):
            raise ValueError("a subject without a name of its own")
        return found
    except (ValueError, KeyError, json_format.Error, RecursionError) as e:
        raise ProvenanceError(f"The provenance is damaged: {' '.join(str(e).split())}.") from e


def pipeline_commit(data: bytes) -> str:
    """Read the commit of this project that made a build; empty where the statement does not say it."""
    try:
        predicate = json_format.MessageToDict(json_format.Parse(data, StatementPb()).predicate)
        found = predicate["runDetails"]["builder"]["version"]["pipeline"]
    except (ValueError, KeyError, TypeError, json_format.Error, RecursionError):
        return ""
    return found if isinstance(found, str) and _is_digest("gitCommit", found) else ""


def _check_predicate(predicate: dict[str, Any]) -> None:
    """See that a predicate has SLSA's schema, and all that SLSA requires; raises ValueError.

    The schema is in protobuf, where every field may be left out; what is required is in its text.
    """
    json_format.ParseDict(predicate, provenance_pb2.Provenance())
    for path in _REQUIRED:
        value: Any = predicate
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if not value:
            raise ValueError(f"its predicate has no {path}")
    for part in predicate["buildDefinition"].get("resolvedDependencies", ()):
        digests = part.get("digest", {})
        if not digests or not all(_is_digest(kind, digests[kind]) for kind in digests):
            raise ValueError(f"the dependency {part.get('name')!r} has no hash")


def _is_digest(kind: str, digest: str) -> bool:
    return re.fullmatch(r"[0-9a-f]+", digest) is not None and len(digest) == _DIGITS.get(kind, len(digest))


def _sha256(name: str, digest: str) -> str:
    if not _is_digest("sha256", digest):
        raise ValueError(f"{name!r} has no SHA-256")
    return digest
