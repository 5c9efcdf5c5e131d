"""A qemu for HVM guests, which packages may lack.

A package that brings none of its own is made for the system's. Here, Debian's build with Xen support takes
that part, from the .debs that the lock of the full tier's host image pins; Debian's own libraries of Xen are
left out, so that it works with those of the package or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.image.lock import DebianLock, read_lock
from pipeline.smoke import deb
from pipeline.smoke.cpio import Tree
from pipeline.source import Source

DEFAULT = "dom0-bookworm"
"""The host image that stands in where a build's image names none."""
_VITAL = frozenset({"qemu-system-xen", "qemu-system-data", "seabios"})
# As in Debian 12; in 13, some names end in t64, for the larger time_t.
_QEMU = frozenset(
    {
        *(*_VITAL, "libfdt1", "libglib2.0-0", "libjpeg62-turbo"),
        *("libgstreamer-plugins-base1.0-0", "libgstreamer1.0-0", "libopus0", "liborc-0.4-0", "libpixman-1-0"),
        *("libspice-server1", "libunwind8", "libusb-1.0-0", "libatomic1"),
    }
)


def sources(host_image: str | None) -> dict[str, Source]:
    """Return the packages to fetch, by what they are called here: those of a host image's lock.

    Raises UsageError for a damaged lock, and for one without a qemu.
    """
    name = host_image or DEFAULT
    lock = read_lock(name)
    assert isinstance(lock, DebianLock)
    if missing := sorted(_VITAL - {package.name for package in lock.packages}):
        raise UsageError(f"Image {name} lacks {missing[0]}, which HVM guests need.")
    return {p.name: p.source for p in lock.packages if p.name.removesuffix("t64") in _QEMU}


def read(packages: Mapping[str, Path]) -> Tree:
    """Return the files of what `sources` names, fetched, by their place in a root. Raises DebError."""
    tree: Tree = {}
    for path in packages.values():
        tree |= deb.files(path)
    return tree
