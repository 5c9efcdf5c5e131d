"""Pushes an AUR folder to the AUR's git repository, after the checks that its hook does.

The rules are those of aurweb's ``aurweb/git/update.py`` and its default settings. What only the AUR can know,
who may push and which names the official repositories have, is left to it.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import log
from pipeline.engine.job import Engine, Job
from pipeline.errors import CommandError, FailureError, HostError, UsageError
from pipeline.git import clone
from pipeline.image.assembly import Image
from pipeline.run import run
from pipeline.scratch import scratch
from pipeline.source import Source
from pipeline.steps import Steps

BRANCH = "master"
MAX_BLOB = 256000
"""The largest file, in bytes, that the AUR takes (max-blob-size)."""

_NAME = re.compile(r"[a-z0-9][a-z0-9.+_-]*")
_LIMITS = {"pkgname": 255, "pkgdesc": 255, "url": 8000, "source": 8000}


class RejectedError(FailureError):
    """The AUR would reject the folder."""


@dataclass(frozen=True)
class SrcInfo:
    """A .SRCINFO: what it says of the whole, and of each package by name."""

    base: Mapping[str, Sequence[str]]
    packages: Mapping[str, Mapping[str, Sequence[str]]]

    @property
    def version(self) -> str:
        """Epoch, pkgver and pkgrel as pacman writes them."""
        epoch = "".join(f"{e}:" for e in self.base.get("epoch", ()))
        return f"{epoch}{''.join(self.base.get('pkgver', ()))}-{''.join(self.base.get('pkgrel', ()))}"


def parse(text: str) -> SrcInfo:
    """Read a .SRCINFO; raises RejectedError naming a line that is none of it."""
    sections: list[dict[str, list[str]]] = []
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        key, separator, value = (part.strip() for part in line.partition("="))
        if not separator or not re.fullmatch(r"[a-z0-9_]+", key):
            raise RejectedError(f".SRCINFO, line {number} is not `key = value`.")
        if key in ("pkgbase", "pkgname"):
            if (key == "pkgbase") != (not sections):
                raise RejectedError(f".SRCINFO, line {number}: {key} stands where it may not.")
            sections.append({})
        if not sections:
            raise RejectedError(f".SRCINFO, line {number} stands before pkgbase.")
        sections[-1].setdefault(key, []).append(value)
    if len(sections) < 2:
        raise RejectedError(".SRCINFO names no package.")
    return SrcInfo(sections[0], {section["pkgname"][0]: section for section in sections[1:]})


def check(folder: Path, pkgbase: str, printed: str) -> SrcInfo:
    """Check a folder as the AUR's hook does; ``printed`` is what makepkg --printsrcinfo says of it.

    Raises RejectedError naming the first thing that is wrong.
    """
    for name in ("PKGBUILD", ".SRCINFO"):
        if not (folder / name).is_file():
            raise RejectedError(f"{folder} has no {name}.")
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            raise RejectedError(f"{path.name} is not a plain file; the AUR takes no folders and links.")
        if path.stat().st_size > MAX_BLOB:
            raise RejectedError(f"{path.name} has more than {MAX_BLOB} bytes, which is the AUR's limit.")
    text = (folder / ".SRCINFO").read_text(encoding="utf-8", errors="replace")
    info = parse(text)
    if text.split() != printed.split():
        raise RejectedError(".SRCINFO is not what makepkg --printsrcinfo says of this PKGBUILD.")
    if info.base["pkgbase"] != [pkgbase]:
        raise RejectedError(
            f"The package base is {info.base['pkgbase'][0]}, and the repository's is {pkgbase}."
        )
    for name, package in info.packages.items():
        _check_package(folder, name, {**info.base, **package})
    return info


def _check_package(folder: Path, name: str, fields: Mapping[str, Sequence[str]]) -> None:
    if not _NAME.fullmatch(name):
        raise RejectedError(f"{name!r} is not a name that the AUR takes.")
    for field in ("pkgver", "pkgrel"):
        if field not in fields:
            raise RejectedError(f"{name} has no {field}.")
    if not all(epoch.isdigit() for epoch in fields.get("epoch", ())):
        raise RejectedError(f"{name}: the epoch is not a number.")
    for field, limit in _LIMITS.items():
        if any(len(value) > limit for value in fields.get(field, ())):
            raise RejectedError(f"{name}: {field} is longer than {limit} characters.")
    for field, values in fields.items():
        if field in ("install", "changelog") or re.fullmatch("source(_.*)?", field):
            local = (v for v in values if v and "://" not in v and "lp:" not in v)
            for value in local:
                if not (folder / value).is_file():
                    raise RejectedError(f"{name}: the folder has no {value} (at {field}).")


# Without network, makepkg takes a clone that lies beside the PKGBUILD, and need not update it.
_MAKEPKG = """
for clone in clones/*.tar; do
  [ ! -e "$clone" ] || tar --extract --file "$clone"
done
# The image may have Debian's packages, of which its pacman knows nothing.
exec makepkg --nodeps --noconfirm --nocolor --holdver
"""


def build(folder: Path, sources: Mapping[str, Path], image: Image, engine: Engine, work: Path) -> list[str]:
    """Build a folder with plain makepkg in a clean image, as an AUR user would.

    Returns the packages' names. ``sources`` are the files that makepkg would download, and as
    ``clones/NAME.tar`` the repositories that it would clone. Raises FailureError where it does not build.
    """
    inputs = {path.name: path for path in folder.iterdir() if path.is_file()} | dict(sources)
    with scratch(work, "aur") as temporary, log.step("Building as an AUR user would: plain makepkg"):
        output = temporary / "output"
        output.mkdir()
        command = ("/bin/bash", "-euc", _MAKEPKG)
        job = Job(command, inputs, environment={"PKGDEST": "/build/output"})
        engine.run(job, image, output, lambda line: log.info(line) if line.startswith("==> ") else None)
        made = sorted(path.name for path in output.glob("*.pkg.tar*"))
    if not made:
        raise FailureError("makepkg made no package.")
    return made


def command(steps: Steps, *, build_first: bool, dry_run: bool) -> str:
    """Make a release's AUR folder, build it unless told otherwise, push it, and say what was done."""
    folder = steps.recipe()  # with a .SRCINFO by makepkg itself, of just now
    work = steps.settings.open_store.root / "scratch"
    if not build_first:
        log.warn("The folder is not built before it is pushed.")
    else:
        made = _build(steps, folder, work)
        log.info(f"makepkg made {', '.join(made)}")
    printed = (folder / ".SRCINFO").read_text(encoding="utf-8")
    return push(folder, steps.settings.aur, printed, work, dry_run=dry_run)


def _build(steps: Steps, folder: Path, work: Path) -> list[str]:
    image = steps.image()
    if not (image.root / "usr/bin/makepkg").exists():
        raise UsageError(
            f"Image {image.name} has no makepkg, with which an AUR user builds the folder.",
            hint="--no-build pushes without that build.",
        )
    found = steps.fetch()
    with scratch(work, "clones") as temporary:
        sources = {source.name: path for source, path in found.items() if isinstance(source, Source)}
        for commit in steps.release.git:
            name = f"{commit.name}.tar"
            sources[f"clones/{name}"] = clone.pack(commit, steps.settings.open_store, temporary / name)
        return build(folder, sources, image, steps.engine, work)


def push(folder: Path, url: str, printed: str, work: Path, *, dry_run: bool = False) -> str:
    """Put a folder's files into the AUR's repository as one commit, and say what was done.

    Shows the difference first; where there is none, there is no commit. Raises RejectedError and HostError.
    """
    pkgbase = url.rstrip("/").rpartition("/")[2].removesuffix(".git")
    info = check(folder, pkgbase, printed)
    with scratch(work, "aur") as temporary:
        ours = temporary / "clone"
        _clone(url, ours)
        old = _old(ours)
        for path in ours.iterdir():
            if path.name != ".git":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        for path in folder.iterdir():
            shutil.copyfile(path, ours / path.name)
        _git(ours, "add", "--all", "--force")
        difference = _git(ours, "diff", "--cached", "--stat", "--patch", "--no-color", "--no-ext-diff")
        if not difference:
            return "Nothing has changed since the last push."
        sys.stdout.write(difference)
        text = message(old, info, _git(ours, "diff", "--cached", "--name-only").split())
        if dry_run:
            return f"Would be pushed to {url}: {text.splitlines()[0]}"
        _commit(ours, text)
        _push(ours, url)
    return f"Pushed to {url}: {text.splitlines()[0]}"


def message(old: SrcInfo | None, new: SrcInfo, changed: Sequence[str]) -> str:
    """Make the commit's message of what has changed."""
    names = ", ".join(name for name in changed if name not in ("PKGBUILD", ".SRCINFO"))
    if old is None:
        return f"Initial import: {new.version}\n"
    if old.version != new.version:
        return f"Update to {new.version}\n" + (f"\nFrom {old.version}. Changed: {names}\n" if names else "")
    return f"Change {names or 'PKGBUILD'}\n\nThe version stays {new.version}.\n"


def _clone(url: str, clone: Path) -> None:
    try:
        run(["git", "clone", "--quiet", "--", url, clone])
    except CommandError as e:
        raise HostError(f"{url} cannot be cloned.", hint=e.hint) from e
    # A new repository has no branch yet, and ours must be called as the AUR wants it.
    _git(clone, "symbolic-ref", "HEAD", f"refs/heads/{BRANCH}")


def _old(clone: Path) -> SrcInfo | None:
    path = clone / ".SRCINFO"
    return parse(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None


def _commit(clone: Path, text: str) -> None:
    try:
        _git(clone, "commit", "--quiet", "--message", text)
    except CommandError as e:
        raise UsageError("git cannot commit: it needs your name and address.", hint=e.hint) from e


def _push(clone: Path, url: str) -> None:
    try:
        _git(clone, "push", "--quiet", "origin", f"HEAD:refs/heads/{BRANCH}")
    except CommandError as e:
        raise HostError(f"{url} did not take the commit.", hint=e.hint) from e


def _git(clone: Path, *words: str) -> str:
    return run(["git", "-C", clone, *words], merge_stderr=False).output
