"""Whether a package's files lie where they may, and with the modes and owners that they should have."""

from __future__ import annotations

import configparser
import zlib
from collections.abc import Iterator

from pipeline.check.findings import Finding, error, warning
from pipeline.package import MAX_CONTENT, Package

# Where Arch keeps links to elsewhere, or where a package has no business; see ArchWiki's "Arch package
# guidelines", section "Directories".
_FORBIDDEN = (
    "bin", "sbin", "lib", "lib64", "usr/lib64", "usr/sbin", "usr/local", "usr/libexec",
    "var/run", "var/lock", "run", "tmp", "var/tmp", "home", "root", "mnt", "media", "dev", "proc", "sys",
    "usr/man", "usr/info", "usr/doc", "usr/etc", "usr/var", "etc/init.d", "etc/rc.d",
    # The administrator's; packages have these in usr/lib.
    "etc/systemd/system", "etc/udev/rules.d", "etc/tmpfiles.d", "etc/sysusers.d", "etc/modprobe.d",
)  # fmt: skip
_LEFTOVERS = ("perllocal.pod", ".packlist", "usr/share/info/dir")
_SET_ID = 0o6000
_READABLE, _ENTERABLE = 0o004, 0o005
_WORLD_WRITABLE = 0o002
_STICKY = 0o1000


def places(package: Package) -> Iterator[Finding]:
    """Nothing lies where Arch has links, or no package anything."""
    full = {member.path.rpartition("/")[0] for member in package.files}
    for member in package.files:
        for prefix in _FORBIDDEN:
            # What is in a folder has a finding of its own.
            if f"{member.path}/".startswith(f"{prefix}/") and member.path not in full:
                yield error("place", package.name, member.path, f"nothing may be in /{prefix}")


def permissions(package: Package) -> Iterator[Finding]:
    """All belongs to root, nobody else may write it, and nothing runs as its owner."""
    for member in package.files:
        if (member.uid, member.gid) != (0, 0):
            yield error("owner", package.name, member.path, f"belongs to {member.uid}:{member.gid}, not root")
        if member.permissions & _SET_ID:
            yield error("set-id", package.name, member.path, f"has mode {member.permissions:o}")
        if member.permissions & _WORLD_WRITABLE and not (
            member.is_link or (member.is_folder and member.permissions & _STICKY)
        ):
            yield error("world-writable", package.name, member.path, f"has mode {member.permissions:o}")
        readable = _READABLE if member.is_file else _ENTERABLE
        if not member.is_link and member.permissions & readable != readable and not _is_state(member.path):
            yield warning(
                "unreadable", package.name, member.path, f"only root can use it: {member.permissions:o}"
            )


def _is_state(path: str) -> bool:
    """Whether programs keep their data there, which may be nobody else's business."""
    return path.startswith("var/")


def build_path(package: Package) -> Iterator[Finding]:
    """The build folder's name in a file says that the file was not made to be installed elsewhere."""
    needle = package.buildinfo["builddir"][0].rstrip("/").encode() + b"/src/"
    for member in package.files:
        if member.content is not None and needle in _plain(member.content):
            yield error("build-path", package.name, member.path, f"contains {needle.decode()}")
        if needle.decode() in member.target:
            yield error("build-path", package.name, member.path, f"points to {member.target}")


def _plain(content: bytes) -> bytes:
    """Look into gzip, as man pages and the hypervisor are, but not deeper than a package may be large."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return zlib.decompressobj(wbits=31).decompress(content, MAX_CONTENT)
    except zlib.error:
        return content


def links(package: Package) -> Iterator[Finding]:
    """A link to nowhere inside the package is a file that was moved or left out."""
    for member in package.files:
        if not member.is_link:
            continue
        folder = member.path.rpartition("/")[0]
        path = member.target if member.target.startswith("/") else f"{folder}/{member.target}"
        if _normal(path) not in package.members:
            message = f"points to {member.target}, which is not in the package"
            yield warning("dangling-link", package.name, member.path, message)


def _normal(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def hard_links(package: Package) -> Iterator[Finding]:
    """Two names of one file in two folders, which may be two file systems of the user's."""
    for member in package.files:
        if member.first and member.first.rpartition("/")[0] != member.path.rpartition("/")[0]:
            yield error("hard-link", package.name, member.path, f"is one file with {member.first}")


def backup(package: Package) -> Iterator[Finding]:
    """What an administrator edits survives an upgrade: backup lists the files in etc, but for programs."""
    listed = package.pkginfo.get("backup", ())
    for path in listed:
        if path not in package.members:
            yield error("backup", package.name, path, "is listed in backup, but not in the package")
    for member in package.files:
        settings = member.path.startswith("etc/") and member.is_file and not member.permissions & 0o111
        if settings and member.path not in listed:
            yield warning("not-in-backup", package.name, member.path, "an upgrade overwrites edits of it")


def names(package: Package) -> Iterator[Finding]:
    """Files have names that every tool can handle."""
    for member in package.files:
        if not member.path.isascii() or not member.path.isprintable():
            yield warning("file-name", package.name, member.path, "has not only ASCII's letters in its name")


def empty_folders(package: Package) -> Iterator[Finding]:
    """A folder that holds nothing is one whose content was lost, unless programs fill it."""
    full = {member.path.rpartition("/")[0] for member in package.files}
    for member in package.files:
        if member.is_folder and member.path not in full and not _is_state(member.path):
            yield warning("empty-folder", package.name, member.path, "holds nothing")


def leftovers(package: Package) -> Iterator[Finding]:
    """Nothing is shipped that only its own build could use."""
    for member in package.files:
        if member.path.endswith(".la"):
            yield error("libtool", package.name, member.path, "libtool's file names paths of the build")
        elif member.path.endswith(".a"):
            yield warning("static-library", package.name, member.path, "nobody gets security fixes for it")
        elif member.path.endswith(_LEFTOVERS):
            yield error("leftover", package.name, member.path, "every package that has it would conflict")


def desktop_entries(package: Package) -> Iterator[Finding]:
    """Desktop entries have what the Desktop Entry Specification demands: Type, Name, and Exec or URL."""
    for member in package.files:
        if not member.path.startswith("usr/share/applications/") or not member.path.endswith(".desktop"):
            continue
        parser = configparser.RawConfigParser(strict=True, interpolation=None)
        try:
            parser.read_string((member.content or b"").decode())
            entry = dict(parser["Desktop Entry"])
        except (configparser.Error, UnicodeDecodeError, KeyError):
            yield error("desktop", package.name, member.path, "is no desktop entry")
            continue
        for key in ("type", "name", "url" if entry.get("type") == "Link" else "exec"):
            if not entry.get(key):
                yield error("desktop", package.name, member.path, f"has no {key.capitalize()}")
