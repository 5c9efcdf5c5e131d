"""Which files of a build go into its bundle, and what its manifest says of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline import files, seal
from pipeline.build import Build
from pipeline.bundle import requirements
from pipeline.bundle.manifest import Entry, GitExport, Manifest
from pipeline.source import GitSource, Source


@dataclass(frozen=True)
class Contents:
    """A bundle that is about to be written: its manifest, and where each of its files lies."""

    manifest: Manifest
    files: dict[str, Path]


def collect(
    build: Build,
    *,
    unproven: bool,
    sources: Mapping[Source | GitSource, Path],
    image_files: Iterable[Path],
) -> Contents:
    """Put together what a bundle of a build holds.

    ``sources`` are those to send along, and ``image_files`` entries of the store, named by their SHA-256,
    of which the images can be assembled.
    """
    papers = [*seal.shipped(build.folder), *seal.signatures(build.folder)]
    found = {f"build/{path.relative_to(build.folder)}": path for path in papers}
    # Their names are their hashes, which the store and the build have just verified: no second pass.
    known = {f"build/{package.file}": package.sha256 for package in build.record.packages}
    for path in image_files:
        found[f"images/{path.name}"] = path
        known[f"images/{path.name}"] = path.name
    for source, path in sources.items():
        name = f"sources/{source.name if isinstance(source, Source) else source.file_name}"
        found[name] = path
        known[name] = path.name
    manifest = Manifest(
        format=1,
        release=build.record.release,
        build_id=build.record.build_id,
        architecture=requirements.architecture(build.packages),
        unproven=unproven,
        requires=requirements.read(build.packages),
        packages=tuple(package.file for package in build.record.packages),
        entries=_entries(found, known),
        git=tuple(GitExport(name=s.name, commit=s.commit) for s in sources if isinstance(s, GitSource)),
    )
    return Contents(manifest, found)


def _entries(found: Mapping[str, Path], known: Mapping[str, str]) -> tuple[Entry, ...]:
    unknown = [name for name in found if name not in known]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        hashes = dict(zip(unknown, pool.map(lambda name: files.sha256(found[name]), unknown), strict=True))
    hashes |= known
    # What is small and says most comes first.
    rank = ("build", "sources", "images")
    names = sorted(found, key=lambda name: (rank.index(name.split("/")[0]), name))
    return tuple(Entry(path=n, size=found[n].stat().st_size, sha256=hashes[n]) for n in names)
