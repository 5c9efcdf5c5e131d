"""The manifest of an unpacked root file system: one line a file, and one hash over all lines.

It notices a byte changed in an image that was unpacked long ago, and names the file.
"""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline import files

_TOGETHER = 200
_SMALL = 1 << 20


def manifest(root: Path) -> str:
    """Describe every file under ``root``: type, permissions, size, content hash or link target, path.

    Owners and times are left out: an unprivileged user cannot restore the former, and nothing that
    runs in a read-only root depends on the latter.
    """
    paths = _walk(root)
    # A task a file would cost more than hashing most of the files does.
    parts = [paths[start : start + _TOGETHER] for start in range(0, len(paths), _TOGETHER)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return "".join(pool.map(lambda part: "".join(_line(root, path) for path in part), parts))


def level(root: Path, seconds: int) -> None:
    """Give every file of a tree one time, in seconds since 1970, and no extended attributes."""
    for path in (os.fspath(root), *(f"{root}/{path}" for path in _walk(root))):
        for name in os.listxattr(path, follow_symlinks=False):
            os.removexattr(path, name, follow_symlinks=False)
        os.utime(path, (seconds, seconds), follow_symlinks=False)


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
    full = f"{root}/{path}"
    info = os.lstat(full)
    mode = info.st_mode & 0o777  # set-id bits do not survive unpacking by an unprivileged user
    # A name may hold a newline; the manifest is one line a file.
    name = path.encode("utf-8", "surrogateescape").decode("ascii", "backslashreplace").replace("\n", "\\n")
    if stat.S_ISLNK(info.st_mode):
        target = hashlib.sha256(os.readlink(full).encode("utf-8", "surrogateescape")).hexdigest()
        return f"link - - {target} {name}\n"
    if stat.S_ISDIR(info.st_mode):
        return f"dir {mode:o} - - {name}\n"
    if not stat.S_ISREG(info.st_mode):
        return f"special {info.st_mode:o} - - {name}\n"
    return f"file {mode:o} {info.st_size} {_sha256(full, info.st_size)} {name}\n"


def _sha256(path: str, size: int) -> str:
    if size > _SMALL:
        return files.sha256(Path(path))
    # Most files are small, and a buffered reader costs more than they do.
    fd = os.open(path, os.O_RDONLY)
    try:
        return hashlib.sha256(os.read(fd, size + 1)).hexdigest()
    finally:
        os.close(fd)
