"""PKGBUILD.in and package/ become an AUR folder: PKGBUILD, .SRCINFO and the support files.

Format: PKGBUILD(5). A token is ``@NAME@``; one that the release does not fill, and one that the
template does not know, are errors. A line ``@SERIES@`` stands for the files of the release's series. Lines
between ``@IF name@`` and ``@FI@`` are there only where the release has that feature in.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import files
from pipeline.engine.job import Engine, Job
from pipeline.errors import FailureError, HostError, UsageError
from pipeline.image.assembly import Image
from pipeline.release import PACKAGE, Release
from pipeline.scratch import scratch
from pipeline.source import GitSource, Source
from pipeline.version import PROJECT

TEMPLATE = PROJECT / "PKGBUILD.in"
SUPPORT = PROJECT / "package"
SERIES = "series"
"""The folder below SUPPORT with what differs from one series of Xen to the next."""

_TOKEN = re.compile(r"@([A-Z][A-Z0-9_]*)@")
_IF = re.compile(r"^@IF ([a-z][a-z0-9-]*)@$")
_PACKAGE_FUNCTION = re.compile(r"^package(_\S+)?\s*\(\)", re.MULTILINE)
_DEBIAN = "debian:"
# apt's own examples of its two formats (sources.list(5)); since Debian 13 there is only the newer one.
_EXAMPLES = {
    "sources.list": re.compile(r"^deb (https?://\S+?)/? \S+ main", re.MULTILINE),
    "debian.sources": re.compile(r"^URIs: (https?://\S+?)/?$", re.MULTILINE),
}


@dataclass(frozen=True)
class Recipe:
    """An AUR folder in memory, but for .SRCINFO, which makepkg itself makes.

    ``compile_part`` is the PKGBUILD without what cannot reach the compiled bytes: the sums of the
    support files and the package functions.
    """

    pkgbuild: str
    compile_part: str
    support: Mapping[str, bytes]

    @property
    def files(self) -> dict[str, bytes]:
        """All files of the folder by name."""
        return {"PKGBUILD": self.pkgbuild.encode(), **self.support}


def render(release: Release, debian_mirror: str) -> Recipe:
    """Fill the template for a release.

    ``debian_mirror`` is the mirror that ``debian:`` sources get in the PKGBUILD (see public_mirror).
    Raises UsageError for a token too many or too few.
    """
    support = {path.name: path.read_bytes() for path in sorted(SUPPORT.iterdir()) if path.is_file()}
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in support.items()}
    pkgbuild = _fill(release, debian_mirror, sums)
    unsummed = _fill(release, debian_mirror, dict.fromkeys(support, "SKIP"))
    functions = _PACKAGE_FUNCTION.search(unsummed)
    if functions is None:
        raise UsageError(f"{TEMPLATE.name} has no package function.")
    return Recipe(pkgbuild, unsummed[: functions.start()], support)


def _fill(release: Release, debian_mirror: str, support_sums: Mapping[str, str]) -> str:
    sources = [_makepkg_source(source, debian_mirror) for source in release.sources]
    sources += [_makepkg_git_source(git) for git in release.git]
    # The commit id says it all.
    sums = [*(source.sha256 for source in release.sources), *("SKIP" for _ in release.git)]
    values: dict[str, str] = {
        "PKGVER": release.version,
        "PKGREL": str(release.revision),
        "XEN_VERSION": release.xen_version,
        "PKGBASE": release.package,
        "STANDS_FOR_XEN": _stands_for(release, "xen"),
        "STANDS_FOR_XEN_DOCS": _stands_for(release, "xen-docs"),
        "SOURCES": _words([*sources, *support_sums]),
        "SHA256SUMS": _words([*sums, *support_sums.values()]),
        "WITHOUT": f" (without {', '.join(release.left_out)})" if release.left_out else "",
    }
    for name, value in release.tokens.items():
        if name in values:
            raise UsageError(
                f"releases/{release.name}.toml: {name} is filled by the pipeline (at tokens.{name})."
            )
        values[name] = value if isinstance(value, str) else _words(value)
    template = _template(release)
    wanted = set(_TOKEN.findall(template))
    for name in sorted(wanted - values.keys()):
        raise UsageError(
            f"releases/{release.name}.toml does not fill @{name}@ of {TEMPLATE.name} (at tokens)."
        )
    for name in sorted(release.tokens.keys() - wanted):
        raise UsageError(
            f"{TEMPLATE.name} has no @{name}@ (at tokens.{name} of releases/{release.name}.toml)."
        )
    return _TOKEN.sub(lambda match: values[match[1]], template)


def _stands_for(release: Release, name: str) -> str:
    """Say that a package under another name takes the place of ``name``: PKGBUILD(5), "provides"."""
    if release.package == PACKAGE:
        return ""
    return f"\n  provides=({name}=$pkgver)\n  conflicts=({name})"


def _template(release: Release) -> str:
    """Read the template with the release's series in it, and only the features that are in."""
    template = TEMPLATE.read_text(encoding="utf-8")
    if "\n@SERIES@\n" in template:
        parts = [_series(release, name) for name in release.series_files]
        if not parts:
            raise UsageError(f"releases/{release.name}.toml names no series (at series).")
        template = template.replace("\n@SERIES@\n", "\n{}\n".format("\n".join(parts)))
    return _featured(template, release)


def _series(release: Release, name: str) -> str:
    path = SUPPORT / SERIES / f"{name}.in"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.in"))) or "none"
        raise UsageError(
            f"releases/{release.name}.toml: there is no series {name} (at series).",
            hint=f"Series: {known}.",
        )
    return path.read_text(encoding="utf-8")


def _featured(template: str, release: Release) -> str:
    lines: list[str] = []
    inside = [True]
    for line in template.splitlines(keepends=True):
        if match := _IF.match(line):
            inside.append(match[1] in release.features and match[1] not in release.left_out)
        elif line.rstrip("\n") == "@FI@":
            if len(inside) == 1:
                raise UsageError("The recipe has an @FI@ without an @IF ...@ before it.")
            inside.pop()
        elif all(inside):
            lines.append(line)
    if len(inside) != 1:
        raise UsageError("The recipe has an @IF ...@ without an @FI@ after it.")
    # What was left out leaves no gap.
    return re.sub(r"\n{3,}", "\n\n", "".join(lines))


def _words(values: Sequence[str]) -> str:
    """Render a bash array's content, a word a line."""
    return "\n".join(f"  {shlex.quote(value)}" for value in values)


def _makepkg_source(source: Source, debian_mirror: str) -> str:
    url = source.urls[0]
    if url.startswith(_DEBIAN):
        url = f"{debian_mirror}/{url.removeprefix(_DEBIAN)}"
    return url if url.rpartition("/")[2] == source.name else f"{source.name}::{url}"


def _makepkg_git_source(source: GitSource) -> str:
    url = source.urls[0] if source.urls[0].startswith("git://") else f"git+{source.urls[0]}"
    return f"{source.name}::{url}#commit={source.commit}"


def public_mirror(image: Image) -> str:
    """Return the Debian mirror that PKGBUILDs name, which must not depend on this host's own mirror.

    apt's own example, in the image's pinned bytes, names the mirror that Debian gives everybody.
    """
    examples = image.root / "usr/share/doc/apt/examples"
    for name, line in _EXAMPLES.items():
        with contextlib.suppress(OSError):
            match = line.search((examples / name).read_text(encoding="utf-8"))
            if match is not None:
                return match[1]
    raise HostError(f"Image {image.name} does not say which mirror Debian recommends (in {examples}).")


def srcinfo(recipe: Recipe, image: Image, engine: Engine, work: Path) -> str:
    """Let real makepkg in the image print the .SRCINFO of a recipe."""
    lines: list[str] = []
    with scratch(work, "recipe") as folder:
        write(recipe, folder / "aur")
        (folder / "output").mkdir()
        inputs = {name: folder / "aur" / name for name in recipe.files}
        job = Job(("makepkg", "--printsrcinfo"), inputs)
        engine.run(job, image, folder / "output", lines.append)
    if not any(line.startswith("pkgbase = ") for line in lines[:1]):
        raise FailureError(
            f"makepkg of image {image.name} printed no .SRCINFO.",
            hint="Does the PKGBUILD print something itself? It begins with:\n" + "\n".join(lines[:5]),
        )
    return "\n".join(lines).rstrip("\n") + "\n"


def write(recipe: Recipe, folder: Path) -> None:
    """Write the recipe's files into ``folder``."""
    for name, data in recipe.files.items():
        files.write_bytes(folder / name, data)
