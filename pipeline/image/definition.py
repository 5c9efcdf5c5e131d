"""What an image is to be: its definition, written by hand in containers/."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec

from pipeline import files
from pipeline.definition import convert, load_toml
from pipeline.errors import UsageError
from pipeline.source import ProjectPath
from pipeline.version import PROJECT

CONTAINERS = PROJECT / "containers"

DebianName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]
ImageName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
# PKGBUILD(5), "pkgname".
ArchName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9@_+][a-z0-9@._+-]*$", max_length=200)]
Repository = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=50)]
Day = Annotated[str, msgspec.Meta(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$")]


class DebianDefinition(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """A Debian root file system: a suite, and the packages that it holds beyond the essential ones.

    ``kernel`` is a package that is fetched and locked but not installed: the dom0 kernel of the smoke
    boots. ``packaging`` names another image that makes the packages, where this one's userland is too old
    for makepkg. ``dom0`` names the image of a whole host that packages built in this one are installed on in
    the smoke boots. ``proof`` holds scripts for bash by what they show; all must succeed in the finished
    image.
    """

    suite: DebianName
    packages: Annotated[tuple[DebianName, ...], msgspec.Meta(min_length=1)]
    components: tuple[DebianName, ...] = ("main",)
    architecture: DebianName = "amd64"
    kernel: DebianName | None = None
    packaging: ImageName | None = None
    dom0: ImageName | None = None
    proof: dict[str, str] = {}


class ArchDefinition(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """An Arch Linux root file system: a day of the Arch Linux Archive, and packages or groups of that day.

    ``repositories`` are in pacman's order: the first that has a package gives it. ``alternative`` names an
    image to use where the archive does not answer, and ``kernel_of`` one whose dom0 kernel the smoke boots
    take. ``keys`` is a file of OpenPGP keys in the project that signatures are verified with besides the
    host's. ``packaging``, ``dom0`` and ``proof`` are as in DebianDefinition.
    """

    snapshot: Day
    packages: Annotated[tuple[ArchName, ...], msgspec.Meta(min_length=1)]
    repositories: Annotated[tuple[Repository, ...], msgspec.Meta(min_length=1)]
    keys: ProjectPath | None = None
    alternative: ImageName | None = None
    kernel_of: ImageName | None = None
    packaging: ImageName | None = None
    dom0: ImageName | None = None
    proof: dict[str, str] = {}

    @property
    def way_out(self) -> str | None:
        """What to do where the archive does not answer."""
        return (
            f"--image {self.alternative} builds without the Arch Linux Archive." if self.alternative else None
        )


Definition: TypeAlias = DebianDefinition | ArchDefinition


def definition_path(name: str) -> Path:
    """Where the definition of image ``name`` is; raises UsageError, listing the images that exist."""
    path = CONTAINERS / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in CONTAINERS.glob("*.toml"))) or "none"
        raise UsageError(f"There is no image {name!r}.", hint=f"Images: {known}.")
    return path


def read_definition(name: str) -> Definition:
    """Read ``containers/NAME.toml``; a snapshot makes it an Arch image, a suite a Debian one."""
    path = definition_path(name)
    data = load_toml(path)
    if "snapshot" in data:
        return convert(path, data, ArchDefinition)
    return convert(path, data, DebianDefinition)


def set_snapshot(name: str, day: str) -> None:
    """Write another day into an Arch image's definition, and leave the rest of the file as it is."""
    path = definition_path(name)
    text, count = re.subn(
        r"^snapshot\s*=.*$", f'snapshot = "{day}"', path.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert count == 1
    files.write_text(path, text)


def definition_sha256(definition: Definition) -> str:
    """Hash what of a definition reaches the image: comments and layout do not, nor do other images."""
    bare: Definition = msgspec.structs.replace(definition, packaging=None, dom0=None, proof={})
    if isinstance(bare, ArchDefinition):
        bare = msgspec.structs.replace(bare, alternative=None, kernel_of=None, keys=None)
    return hashlib.sha256(msgspec.json.encode(bare, order="sorted")).hexdigest()
