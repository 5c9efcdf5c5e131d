"""Makes a bundle of a finished build, with what another machine needs to rebuild it where that is wanted."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from pipeline import evidence, files, log, records, signing
from pipeline.build import Build
from pipeline.bundle import archive
from pipeline.bundle.contents import Contents, collect
from pipeline.errors import UsageError
from pipeline.fetch import fetch
from pipeline.source import GitSource, Source
from pipeline.steps import Steps

SUFFIX = ".bundle.tar"


def pack(
    steps: Steps, *, output: str = "", sources: bool = False, image: bool = False, unproven: bool = False
) -> Path | None:
    """Make a bundle of a release's newest build and return its path; ``-`` as output is standard output.

    ``sources`` and ``image`` add what a rebuild without network needs; ``unproven`` allows packages without
    passing evidence, and marks the bundle. Raises UnprovenError, and UsageError where the build is no longer
    what the release file describes.
    """
    build = steps.newest()
    unproven = not _proven(build, allowed=unproven)
    steps.seal(build)
    found, image_files = _rebuild(steps.like(build), build, sources=sources, image=image)
    contents = collect(build, unproven=unproven, sources=found, image_files=image_files)
    signature = _signature(records.encode(contents.manifest), steps.settings.signing_key, build)
    if output == "-":
        _write(contents, signature, sys.stdout.buffer)
        sys.stdout.flush()
        return None
    name = f"{build.record.release}-{build.record.build_id}{SUFFIX}"
    path = Path(output).expanduser() if output else steps.settings.artifacts_folder / "bundles" / name
    with log.step(f"Bundling {path.name}"), files.replacing(path) as file:
        _write(contents, signature, file)
    return path


def _proven(build: Build, *, allowed: bool) -> bool:
    try:
        evidence.require(build.folder, build.hashes)
    except evidence.UnprovenError as e:
        if not allowed:
            raise type(e)(e.message, hint=f"{e.hint} --allow-unproven bundles it, and says so in it.") from e
        log.warn(f"{e.message} The bundle says so.")
        return False
    return True


def _rebuild(
    steps: Steps, build: Build, *, sources: bool, image: bool
) -> tuple[dict[Source | GitSource, Path], list[Path]]:
    """Return the release's sources, and the packages of its images, as far as they are wanted."""
    if not sources and not image:
        return {}, []
    steps = steps.like(build)
    plan = steps.plan()
    if plan.build_id != build.record.build_id:
        raise UsageError(
            f"Release {build.record.release} is no longer what build {build.record.build_id} was made from.",
            hint=f"./inv release {build.record.release} makes a new one.",
        )
    needed = {s.sha256: s for one in (plan.image, plan.packaging) for s in one.sources}
    settings = steps.settings
    image_files = (
        fetch(list(needed.values()), settings.open_store, settings.open_mirrors, jobs=settings.downloads)
        if image
        else {}
    )
    return steps.fetch() if sources else {}, sorted(image_files.values())


def _write(contents: Contents, signature: bytes | None, file: archive.Writable) -> None:
    manifest = records.encode(contents.manifest)
    with log.bytes_bar("bundle", contents.manifest.size) as on_bytes:
        archive.write(file, manifest, signature, contents.files, on_bytes)


def _signature(manifest: bytes, key: str, build: Build) -> bytes | None:
    """Sign a manifest, once: a signature holds its time, and made anew two bundles would differ."""
    if not key:
        return None
    folder = build.folder / "bundles" / hashlib.sha256(manifest).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    path, signature = folder / archive.MANIFEST, folder / archive.SIGNATURE
    files.write_bytes(path, manifest)
    with signing.keyring(own=key) as keys:
        if keys.verify(path, signature, exact=True).status is not signing.Status.GOOD:
            signing.sign(path, key)
    return signature.read_bytes()
