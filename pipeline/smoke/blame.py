"""Find the package's file that a failure points to, from what programs in dom0 printed."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection

_PATH = re.compile(r"(?<![\w/.])/((?:[\w.+@-]+/)+[\w.+@-]*[\w+@-])")
_DIED = frozenset({126, 127, *range(129, 160)})
"""Exit statuses by which a shell says that a program could not be started, or was killed by a signal."""


def file_named(text: str, package: Collection[str]) -> str | None:
    """Return the first file that a text names which the package has, or lacks in a folder of Xen's own.

    ``package`` are the paths of all that it has, relative to the root.
    """
    folders = {posixpath.dirname(path) for path in package if "/xen/" in path}
    for match in _PATH.finditer(text):
        path = posixpath.normpath(match[1])
        if path in package or posixpath.dirname(path) in folders:
            return path
    return None


def program_of(command: str, status: int, package: Collection[str]) -> str | None:
    """Return the package's program that a command of dom0 began with, if it did not even run to its end."""
    words = command.split()
    if status not in _DIED or not words:
        return None
    return next((f"{at}/{words[0]}" for at in ("usr/bin", "usr/sbin") if f"{at}/{words[0]}" in package), None)
