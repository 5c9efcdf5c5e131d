"""Compares packages of the same name: their metadata, files, settings and manual pages."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.diff import kconfig, libraries, pages
from pipeline.package import Member, Package

_LISTS = (
    *("license", "group", "backup", "depend", "optdepend", "provides", "conflict", "replaces", "xdata"),
    *("arch", "pkgdesc", "url"),
)
"""Keys of .PKGINFO that say something of the package, and not of the moment it was made in."""

SAME_SIZE = "other content of the same size"

_MAX_SETTINGS = 200
"""Lines of one file of settings that are worth reading in a terminal."""


@dataclass(frozen=True)
class Change:
    """A file that is in both packages, and what is different: size, mode, owner, target or content."""

    path: str
    what: str


@dataclass(frozen=True)
class Difference:
    """What changed in one package; ``before`` or ``after`` is None where it is in one build only.

    ``metadata`` are lines that begin with + or -; ``libraries`` those that have another version, whose files
    are not in ``added`` and ``removed``. ``settings`` maps files in etc to the lines of a unified diff,
    ``kconfig`` lists of Kconfig to options, and ``options`` manual pages to what they describe. ``sizes`` are
    those of all files, in bytes.
    """

    name: str
    before: str | None
    after: str | None
    metadata: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[Change, ...] = ()
    libraries: tuple[str, ...] = ()
    settings: dict[str, tuple[str, ...]] | None = None
    kconfig: dict[str, tuple[str, ...]] | None = None
    options: dict[str, tuple[str, ...]] | None = None
    sizes: tuple[int, int] = (0, 0)

    @property
    def same(self) -> bool:
        """Whether nothing that is compared differs."""
        changes = (self.metadata, self.added, self.removed, self.changed, self.libraries)
        return self.before == self.after and not any(changes)


def compare(before: Sequence[Package], after: Sequence[Package]) -> list[Difference]:
    """Compare two builds' packages by their names, in the order of the names."""
    old, new = ({package.name: package for package in packages} for packages in (before, after))
    found = []
    for name in sorted(old.keys() | new.keys()):
        if name in old and name in new:
            found.append(_compare(old[name], new[name]))
        else:
            one = old[name].version if name in old else None
            other = new[name].version if name in new else None
            found.append(Difference(name, one, other))
    return found


def _compare(old: Package, new: Package) -> Difference:
    before, after = ({m.path: m for m in package.files} for package in (old, new))
    both = [(before[path], after[path]) for path in sorted(before.keys() & after.keys())]
    contents = [(a, b) for a, b in both if a.is_file and b.is_file and a.sha256 != b.sha256]
    added, removed = _outermost(after, before), _outermost(before, after)
    versions, named = libraries.compare(removed, added)
    return Difference(
        name=old.name,
        before=old.version,
        after=new.version,
        metadata=tuple(_metadata(old, new)),
        added=tuple(path for path in added if path not in named),
        removed=tuple(path for path in removed if path not in named),
        libraries=versions,
        changed=tuple(
            Change(a.path, what)
            for a, b in both
            if a.path not in named and (what := ", ".join(_changes(a, b)))
        ),
        settings={a.path: _settings(a, b) for a, b in contents if _is_setting(b)},
        kconfig={a.path: kconfig.compare(a, b) for a, b in contents if kconfig.is_config(b)},
        options={a.path: lines for a, b in contents if (lines := pages.compare(a, b))},
        sizes=(sum(m.size for m in before.values()), sum(m.size for m in after.values())),
    )


def _metadata(old: Package, new: Package) -> Iterator[str]:
    for key in _LISTS:
        before, after = old.pkginfo.get(key, ()), new.pkginfo.get(key, ())
        yield from (f"- {key} {value}" for value in before if value not in after)
        yield from (f"+ {key} {value}" for value in after if value not in before)


def _outermost(these: dict[str, Member], others: dict[str, Member]) -> tuple[str, ...]:
    """The paths that only ``these`` have; a folder that is new stands for all that is in it."""
    only = sorted(these.keys() - others.keys())
    folders = {path for path in only if these[path].is_folder}
    return tuple(
        f"{path}/" if path in folders else path
        for path in only
        if not any(path.startswith(f"{folder}/") for folder in folders)
    )


def _changes(old: Member, new: Member) -> Iterator[str]:
    if old.mode != new.mode:
        yield f"mode {old.mode:o} → {new.mode:o}"
    if (old.uid, old.gid) != (new.uid, new.gid):
        yield f"owner {old.uid}:{old.gid} → {new.uid}:{new.gid}"
    if old.target != new.target:
        yield f"→ {new.target or 'no link'} instead of {old.target or 'no link'}"
    if not new.is_file:
        return
    if old.size != new.size:
        yield f"{new.size - old.size:+,} bytes of {old.size:,}"
    elif old.sha256 != new.sha256:
        yield SAME_SIZE


def _is_setting(member: Member) -> bool:
    """Whether it is in etc to be edited; scripts that lie there are programs."""
    content = member.content or b""
    program = content.startswith(b"#!") or member.path.endswith(".sh")
    return member.path.startswith("etc/") and not program


def _settings(old: Member, new: Member) -> tuple[str, ...]:
    try:
        before, after = ((m.content or b"").decode().splitlines() for m in (old, new))
    except UnicodeDecodeError:
        return ("not a text",)
    lines = list(difflib.unified_diff(before, after, lineterm="", n=0))[2:]
    shown = [line for line in lines if not line.startswith("@@")]
    if len(shown) > _MAX_SETTINGS:
        return (*shown[:_MAX_SETTINGS], f"... {len(shown) - _MAX_SETTINGS} lines more")
    return tuple(shown)
