"""Look files up in layers laid over each other: the package's own files first, then the image's.

Paths are relative to the root, without a leading slash. Symbolic links are followed inside the layers
and never on the host, so that an image's absolute link does not lead out of the image.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import libarchive

from pipeline.smoke.cpio import Directory, Entry, File, Symlink, Tree
from pipeline.smoke.errors import PackageContentError

MAX_PACKAGE = 1 << 30
"""Bytes that packages may unpack to."""
MAX_LINKS = 40
"""Symbolic links followed for one path, as in Linux."""


class Layer(Protocol):
    """A file tree that can be asked for one path at a time."""

    def get(self, path: str) -> Entry | None:
        """Return what is at a path, without following links; None where nothing is."""


class DirectoryLayer:
    """A directory of this host, such as an unpacked image."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, path: str) -> Entry | None:
        """See Layer; anything but files, links and directories counts as nothing."""
        real = self._root / path
        try:
            status = real.lstat()
            if stat.S_ISLNK(status.st_mode):
                return Symlink(os.readlink(real))
            if stat.S_ISREG(status.st_mode):
                return File(real.read_bytes(), stat.S_IMODE(status.st_mode) & 0o755)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Directory() if stat.S_ISDIR(status.st_mode) else None

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted; none where there is no such folder."""
        try:
            return sorted(path.name for path in (self._root / folder).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []


@dataclass
class PackageLayer:
    """The files of pacman packages (.pkg.tar.*), read into memory."""

    tree: Tree = field(default_factory=dict)

    def get(self, path: str) -> Entry | None:
        """See Layer."""
        return self.tree.get(path)

    def programs(self, name: str) -> list[str]:
        """Return the paths of all executables with a name, those on PATH first.

        hvmloader is one for a guest, and carries no such mark.
        """
        found = [
            path
            for path, entry in self.tree.items()
            if posixpath.basename(path) == name
            and (isinstance(entry, Symlink) or (isinstance(entry, File) and _executable(path, entry)))
        ]
        return sorted(found, key=lambda path: (_path_rank(path), path))

    def under(self, folder: str) -> Iterator[str]:
        """Yield the paths of files and links below a folder, sorted."""
        for path in sorted(self.tree):
            if path.startswith(folder + "/") and not isinstance(self.tree[path], Directory):
                yield path


def _executable(path: str, entry: File) -> bool:
    return bool(entry.mode & 0o111) or path.endswith("/xen/boot/hvmloader")


def _path_rank(path: str) -> int:
    on_path = ("usr/bin", "usr/sbin", "bin", "sbin")
    folder = posixpath.dirname(path)
    return on_path.index(folder) if folder in on_path else len(on_path)


def read_packages(packages: Iterable[Path]) -> PackageLayer:
    """Read package files into one layer.

    Raises PackageContentError for an archive that is damaged, larger than MAX_PACKAGE, or has paths
    that lead out of the root.
    """
    layer = PackageLayer()
    room = MAX_PACKAGE
    for package in packages:
        try:
            with libarchive.file_reader(str(package)) as archive:
                for entry in archive:
                    path = _clean(package, entry.pathname)
                    data = bytearray()
                    if entry.isfile or entry.islnk:
                        for block in entry.get_blocks():
                            data += block
                            if len(data) > room:
                                raise PackageContentError(f"{package.name} is larger than {MAX_PACKAGE} B.")
                        room -= len(data)
                    _add(layer.tree, path, entry, bytes(data))
        except libarchive.ArchiveError as e:
            raise PackageContentError(f"{package.name} cannot be read: {e}.") from e
    return layer


def _add(tree: Tree, path: str, entry: libarchive.entry.ArchiveEntry, data: bytes) -> None:
    if not path:
        return
    if entry.isdir:
        tree.setdefault(path, Directory())
    elif entry.issym:
        tree[path] = Symlink(entry.linkname)
    elif entry.islnk:
        # A hard link comes after the file it means, and brings no data of its own.
        tree[path] = tree.get(posixpath.normpath(entry.linkname), File(data))
    elif entry.isfile:
        tree[path] = File(data, entry.mode & 0o755)


def _clean(package: Path, path: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts:
        raise PackageContentError(f"{package.name} has a path that leads out of the root: {path!r}.")
    return "/".join(parts)


class Union:
    """Layers as one tree; of two layers that have a path, the first wins."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = layers

    def get(self, path: str) -> Entry | None:
        """Return what is at a path, without following links."""
        for layer in self._layers:
            if (entry := layer.get(path)) is not None:
                return entry
        return None

    def walk(self, path: str) -> tuple[Tree, str | None]:
        """Follow a path to its end, through links.

        Returns what was passed on the way (links) and found at the end, and the real path of the end,
        or None where nothing is there.
        """
        passed: Tree = {}
        todo, done = [part for part in path.split("/") if part], ""
        links = 0
        while todo:
            part = todo.pop(0)
            if part in ("", "."):
                continue
            if part == "..":
                done = posixpath.dirname(done)
                continue
            here = f"{done}/{part}" if done else part
            entry = self.get(here)
            if entry is None:
                return passed, None
            if isinstance(entry, Symlink):
                links += 1
                if links > MAX_LINKS:
                    return passed, None
                passed[here] = entry
                todo = entry.target.split("/") + todo
                if entry.target.startswith("/"):
                    done = ""
                continue
            if isinstance(entry, File):
                passed[here] = entry
                if todo:
                    return passed, None
            done = here
        return passed, done
