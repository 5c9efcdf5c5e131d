"""The manifest of an unpacked root file system: one line a file, and one hash over all lines.

It notices a byte changed in an image that was unpacked long ago, and names the file.
"""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def manifest(root: Path) -> str:
    """Describe every file under ``root``: type, permissions, size, content hash or link target, path.

    Owners and times are left out: an unprivileged user cannot restore the former, and nothing that
    runs in a read-only root depends on the latter.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        lines = list(pool.map(lambda path: _line(root, path), _walk(root), chunksize=64))
    return "\n".join(lines) + "\n"


def manifest_sha256(text: str) -> str:
    """Hash a manifest into the one number that a lock asserts."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def differences(expected: str, found: str) -> list[str]:
    """Name the paths on which two manifests disagree, sorted."""
    changed = set(expected.splitlines()) ^ set(found.splitlines())
    return sorted({line.split(" ", 4)[4] for line in changed if line.count(" ") >= 4})


def _walk(root: Path) -> list[str]:
    paths: list[str] = []
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                paths.append(path)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
    return sorted(paths)


def _line(root: Path, path: str) -> str:
    full = os.fspath(root / path)
    info = os.lstat(full)
    mode = info.st_mode & 0o777  # set-id bits do not survive unpacking by an unprivileged user
    # A name may hold a newline; the manifest is one line a file.
    name = path.encode("utf-8", "surrogateescape").decode("ascii", "backslashreplace").replace("\n", "\\n")
    if stat.S_ISLNK(info.st_mode):
        target = hashlib.sha256(os.readlink(full).encode("utf-8", "surrogateescape")).hexdigest()
        return f"link - - {target} {name}"
    if stat.S_ISDIR(info.st_mode):
        return f"dir {mode:o} - - {name}"
    if not stat.S_ISREG(info.st_mode):
        return f"special {info.st_mode:o} - - {name}"
    with open(full, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"file {mode:o} {info.st_size} {digest} {name}"
