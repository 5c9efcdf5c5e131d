"""What an image is: its definition (written by hand) and its lock (written by image.lock)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from pipeline.definition import read_toml, toml_inline
from pipeline.errors import UsageError
from pipeline.source import FileName, Sha256, Source, Url

CONTAINERS = Path(__file__).resolve().parents[2] / "containers"

DebianName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]


class Definition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A Debian root file system: a suite, and the packages that it holds beyond the essential ones.

    ``kernel`` is a package that is fetched and locked but not installed: the dom0 kernel of the smoke
    boots. ``packaging`` names another image that makes the packages, where this one's userland is too old
    for makepkg.
    """

    suite: DebianName
    packages: Annotated[tuple[DebianName, ...], msgspec.Meta(min_length=1)]
    components: tuple[DebianName, ...] = ("main",)
    architecture: DebianName = "amd64"
    kernel: DebianName | None = None
    packaging: DebianName | None = None


class LockedPackage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One .deb of an image; ``version`` is for the reader of a diff, the hash is what counts."""

    name: FileName
    version: str
    url: Url
    size: Annotated[int, msgspec.Meta(ge=1)]
    sha256: Sha256

    @property
    def source(self) -> Source:
        """The package as something to fetch."""
        return Source(name=self.url.rpartition("/")[2], urls=(self.url,), size=self.size, sha256=self.sha256)


class Lock(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that fixes an image's bytes, and what those bytes must then be.

    ``definition_sha256`` ties the lock to the definition that it was made from; ``release_sha256`` is
    the suite's signed InRelease file at that time. ``rootfs_sha256`` is the root file system's tar,
    ``tree_sha256`` its unpacked tree (see ``pipeline.image.tree``), ``image_id`` the docker image.
    """

    definition_sha256: Sha256
    release_sha256: Sha256
    source_date_epoch: int
    rootfs_sha256: Sha256
    tree_sha256: Sha256
    image_id: Annotated[str, msgspec.Meta(pattern="^sha256:[0-9a-f]{64}$")]
    packages: tuple[LockedPackage, ...]
    kernel: LockedPackage | None = None

    @property
    def sources(self) -> list[Source]:
        """All that the image is made of, and the kernel, as things to fetch."""
        return [package.source for package in (*self.packages, *([self.kernel] if self.kernel else []))]


def definition_path(name: str) -> Path:
    """Where the definition of image ``name`` is; raises UsageError, listing the images that exist."""
    path = CONTAINERS / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in CONTAINERS.glob("*.toml"))) or "none"
        raise UsageError(f"There is no image {name!r}.", hint=f"Images: {known}.")
    return path


def lock_path(name: str) -> Path:
    """Where the lock of image ``name`` is or will be."""
    return CONTAINERS / f"{name}.lock"


def read_definition(name: str) -> Definition:
    """Read ``containers/NAME.toml``."""
    return read_toml(definition_path(name), Definition)


def render_lock(lock: Lock) -> str:
    """Render a lock as TOML with one line a package, sorted, so that two locks diff well."""
    fields = ("definition_sha256", "release_sha256", "rootfs_sha256", "tree_sha256", "image_id")
    lines = ["# Made by `./inv image.lock`; not to be edited by hand."]
    lines += [f'{field} = "{getattr(lock, field)}"' for field in fields]
    lines.append(f"source_date_epoch = {lock.source_date_epoch}")
    if lock.kernel is not None:
        lines.append(f"kernel = {toml_inline(msgspec.structs.asdict(lock.kernel))}")
    lines.append("packages = [")
    lines += [
        f"  {toml_inline(msgspec.structs.asdict(p))}," for p in sorted(lock.packages, key=lambda p: p.name)
    ]
    lines.append("]")
    return "\n".join(lines) + "\n"
