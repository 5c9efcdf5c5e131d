"""Whether what pacman and people are told of a package is right: name, description, licences, messages."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.check.findings import Finding, error, warning
from pipeline.package import Package

# Whose text is in Arch's package "licenses", which all systems have; the others need a file of their own.
_COMMON_LICENCES = ("AGPL-", "Apache-2.0", "GFDL-", "GPL-", "LGPL-", "MPL-", "Unlicense")
# Whose work pacman's hooks do at the end of every transaction: systemd's and those of the cache's owners.
_HOOKED = (
    "systemd-tmpfiles", "systemd-sysusers", "systemd-hwdb", "systemctl daemon-reload", "udevadm", "depmod",
    "update-desktop-database", "update-mime-database", "gtk-update-icon-cache", "glib-compile-schemas",
    "install-info", "fc-cache", "mkinitcpio",
)  # fmt: skip
_DOCS = ("usr/share/doc/", "usr/share/man/", "usr/share/info/", "usr/share/gtk-doc/")
_NAME = re.compile(r"[a-z0-9@_+][a-z0-9@._+-]*")
"""PKGBUILD(5), "pkgname"; capitals are against the Arch package guidelines."""


def description(package: Package) -> Iterator[Finding]:
    """The name, the description and the address follow the Arch package guidelines."""
    said = package.pkginfo.get("pkgdesc", ("",))[0]
    if not _NAME.fullmatch(package.name):
        yield error(
            "description", package.name, ".PKGINFO", "its name has more than small letters and digits"
        )
    if not said:
        yield warning("description", package.name, ".PKGINFO", "has no description")
    elif package.name in re.findall(r"[^\s,:;]+", said.lower()):
        yield warning("description", package.name, ".PKGINFO", "the description names the package itself")
    if not package.pkginfo.get("url", ("",))[0]:
        yield warning("description", package.name, ".PKGINFO", "has no URL")


def licence(package: Package) -> Iterator[Finding]:
    """The text of every licence is at hand (Arch package guidelines, "Licenses")."""
    own = [name for name in package.pkginfo.get("license", ()) if not name.startswith(_COMMON_LICENCES)]
    if not package.pkginfo.get("license"):
        yield error("licence", package.name, ".PKGINFO", "names no licence")
    for name in package.pkginfo.get("license", ()):
        if not _is_spdx(name):
            yield error("licence", package.name, ".PKGINFO", f"{name!r} is no expression of SPDX's")
    base = package.pkginfo["pkgbase"][0]
    places = {f"usr/share/licenses/{name}/" for name in (package.name, base)}
    others = [*package.pkginfo.get("depend", ())]
    if own and base != package.name and base in others:
        return
    if own and not any(m.is_file and m.path.startswith(tuple(places)) for m in package.files):
        yield error("licence", package.name, min(places), f"lacks the text of {', '.join(own)}")


def _is_spdx(text: str) -> bool:
    # It comes with a list of all licences, which only a check should load.
    from cyclonedx import spdx

    return spdx.is_expression(re.sub(r"LicenseRef-[A-Za-z0-9.-]+", "MIT", text))


def hooks(package: Package) -> Iterator[Finding]:
    """The install script leaves to pacman's hooks what they do for all packages at once."""
    script = (package.install or b"").decode(errors="replace")
    for command in _HOOKED:
        if re.search(rf"^\s*(?:\S*/)?{re.escape(command)}\b", script, re.MULTILINE):
            yield warning("hook", package.name, ".INSTALL", f"runs {command}, as a hook of pacman's does")


def documentation(package: Package) -> Iterator[Finding]:
    """A package that is mostly documentation is one to split (Arch package guidelines)."""
    sizes = {m.path: m.size for m in package.files if m.is_file}
    docs = sum(size for path, size in sizes.items() if path.startswith(_DOCS))
    if docs * 2 > sum(sizes.values()) and not package.name.endswith(("-doc", "-docs")):
        yield warning(
            "lots-of-docs", package.name, "", f"{docs * 100 // sum(sizes.values())} % is documentation"
        )
