"""Debian root file systems: resolved by apt, assembled offline by mmdebstrap from the locked packages."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote, unquote

from debian.deb822 import Packages, Release

from pipeline import files, log
from pipeline.errors import CommandError, HostError, IntegrityError
from pipeline.image.definition import DebianDefinition
from pipeline.image.lock import LockedDeb
from pipeline.run import run

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# Run by mmdebstrap with the root as $1, after the packages are configured.
_NORMALISE = """
set -eu
cd "$1"
# Python's byte code carries the times of the files it was compiled from.
find . -xdev -name __pycache__ -prune -exec rm -r {} +
# What mmdebstrap copied from this host, or says where the packages came from.
rm -f etc/apt/sources.list
printf 'xen-build\\n' > etc/hostname
printf '127.0.0.1 localhost xen-build\\n' > etc/hosts
: > etc/resolv.conf
: > etc/machine-id
find var/log -type f -exec truncate -s 0 {} +
rm -rf var/cache/ldconfig var/cache/debconf/*-old var/lib/dpkg/*-old etc/*-
# The engines run commands as this user; the folder is where they mount the workspace.
printf 'builder:x:1000:1000:builder:/build:/usr/sbin/nologin\\n' >> etc/passwd
printf 'builder:x:1000:\\n' >> etc/group
mkdir -p build
# A docker volume takes its owner from the folder that it covers.
chown 1000:1000 build
"""


@dataclass(frozen=True)
class Resolution:
    """What a suite held on the day of locking, as far as an image needs it."""

    release_sha256: str
    source_date_epoch: int
    packages: tuple[LockedDeb, ...]
    kernel: LockedDeb | None


def resolve(definition: DebianDefinition, mirror: str, scratch: Path) -> Resolution:
    """Ask apt which packages make up the image today; apt checks the suite's signature on the way.

    ``mirror`` is the root of a Debian mirror, ``scratch`` an empty folder.
    """
    apt = _private_apt(definition, mirror, scratch)
    apt("update")
    lists = scratch / "state" / "lists"
    release = next(lists.glob("*_InRelease"))
    date = Release(release.read_bytes())["Date"]
    index = _index(lists)
    # The essential packages are named by pattern (apt-patterns(7)), as mmdebstrap does.
    wanted = ["?essential", "?priority(required)", "apt", *definition.packages]
    paths = _print_uris(apt("--print-uris", "install", *wanted), mirror)
    kernel = None
    if definition.kernel is not None:
        (path,) = _print_uris(apt("--print-uris", "download", definition.kernel), mirror)
        kernel = index[path]
    return Resolution(
        release_sha256=files.sha256(release),
        source_date_epoch=int(parsedate_to_datetime(date).timestamp()),
        packages=tuple(sorted((index[path] for path in paths), key=lambda p: p.name)),
        kernel=kernel,
    )


class _Apt:
    def __init__(self, config: Path) -> None:
        self._config = config

    def __call__(self, *args: str) -> str:
        env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "APT_CONFIG": os.fspath(self._config)}
        try:
            return run(["apt-get", "--quiet", "--yes", *args], env=env, cwd=self._config.parent).output
        except CommandError as e:
            raise HostError("apt could not resolve the image's packages.", hint=e.hint) from e


def _private_apt(definition: DebianDefinition, mirror: str, scratch: Path) -> _Apt:
    if not _KEYRING.is_file():
        raise HostError(f"{_KEYRING} is missing.", hint="./inv setup installs it.")
    for folder in ("etc/preferences.d", "state/lists/partial", "cache/archives/partial"):
        (scratch / folder).mkdir(parents=True)
    (scratch / "status").touch()
    components = " ".join(definition.components)
    (scratch / "sources.list").write_text(
        f"deb [signed-by={_KEYRING}] {mirror} {definition.suite} {components}\n"
    )
    settings = {
        "Dir::Etc": scratch / "etc",
        "Dir::Etc::SourceList": scratch / "sources.list",
        "Dir::Etc::SourceParts": scratch / "etc" / "none",
        "Dir::Etc::Parts": scratch / "etc" / "none",
        "Dir::State": scratch / "state",
        "Dir::State::status": scratch / "status",
        "Dir::Cache": scratch / "cache",
        "APT::Architecture": definition.architecture,
        "APT::Architectures": definition.architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    config = scratch / "apt.conf"
    config.write_text("".join(f'{key} "{value}";\n' for key, value in settings.items()))
    return _Apt(config)


def _index(lists: Path) -> dict[str, LockedDeb]:
    """Read the suite's Packages indices into a table by path in the archive."""
    index: dict[str, LockedDeb] = {}
    for path in lists.glob("*_Packages"):
        with path.open("rb") as file:
            for entry in Packages.iter_paragraphs(file, use_apt_pkg=False):
                index[entry["Filename"]] = LockedDeb(
                    name=entry["Package"],
                    version=entry["Version"],
                    url=f"debian:{entry['Filename']}",
                    size=int(entry["Size"]),
                    sha256=entry["SHA256"],
                )
    return index


def _print_uris(output: str, mirror: str) -> list[str]:
    """Take the archive paths from ``apt-get --print-uris``: ``'URI' file size hash`` a line."""
    prefix = mirror.rstrip("/") + "/"
    uris = [line[1:].partition("'")[0] for line in output.splitlines() if line.startswith("'")]
    return [unquote(uri.removeprefix(prefix)) for uri in uris]


def assemble(
    definition: DebianDefinition,
    packages: Sequence[LockedDeb],
    debs: Mapping[str, Path],
    source_date_epoch: int,
    scratch: Path,
) -> Path:
    """Make the root file system's tar from exactly the locked packages, with no network.

    ``debs`` maps a package's SHA-256 to its file. Returns the tar's path, in ``scratch``.
    """
    repository = _repository(definition, packages, debs, scratch)
    hook = scratch / "normalise"
    hook.write_text("#!/bin/sh\n" + _NORMALISE)
    hook.chmod(0o755)
    tar = scratch / "rootfs.tar"
    env = {
        "PATH": os.environ["PATH"],
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "HOME": os.fspath(scratch),
        "SOURCE_DATE_EPOCH": str(source_date_epoch),
    }
    lines: list[str] = []
    argv = [
        "mmdebstrap",
        "--variant=minbase",
        f"--architectures={definition.architecture}",
        "--format=tar",
        "--skip=output/dev",
        f"--include={','.join(sorted({p.name for p in packages}))}",
        f"--customize-hook={hook}",
        definition.suite,
        os.fspath(tar),
        # Words of sources.list(5) end at a space, so the path is one of a URI.
        f"deb [trusted=yes] copy://{quote(os.fspath(repository))} ./",
    ]
    try:
        with _apart(scratch) as prefix:
            run([*prefix, *argv], env=env, cwd=scratch, on_line=lines.append)
    except CommandError as e:
        failures = [line for line in lines if line.startswith("E:")]
        raise HostError(
            "mmdebstrap could not assemble the image.", hint="\n".join(lines[-30:] + failures[:3])
        ) from e
    return tar


@contextlib.contextmanager
def _apart(scratch: Path) -> Iterator[list[str]]:
    """Give the beginning of a command line that keeps in ``scratch`` what a killed mmdebstrap leaves.

    It works in a folder of its own below /tmp, with the host's /proc, /sys and /dev mounted there. The mounts
    go with a namespace, and the folder is bound there: apt's own user, without which the bytes are others,
    cannot look into every store, nor into every TMPDIR. A kill leaves an empty folder there.
    For other users than root, mmdebstrap makes such a namespace itself.
    """
    if os.geteuid() != 0:
        yield []
        return
    work = scratch / "mmdebstrap"
    work.mkdir()
    work.chmod(0o755)
    with tempfile.TemporaryDirectory(prefix="mmdebstrap-", dir="/tmp") as place:
        bind = 'mount --bind "$1" "$TMPDIR" && shift && exec "$@"'
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
        yield [*unshare, "env", f"TMPDIR={place}", "sh", "-c", bind, "sh", os.fspath(work)]


def _repository(
    definition: DebianDefinition,
    packages: Sequence[LockedDeb],
    debs: Mapping[str, Path],
    scratch: Path,
) -> Path:
    """Lay out the locked packages as a flat repository, so that apt can see nothing else.

    It needs no signature: every file in it has just been compared with its hash in the lock.
    """
    repository = scratch / "repository"
    repository.mkdir()
    for package in packages:
        if package.sha256 not in debs:
            raise IntegrityError(f"{package.source.name} is not in the store.")
        files.link_or_copy(debs[package.sha256], repository / package.source.name)
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    index = run(["apt-ftparchive", "packages", "."], cwd=repository, env=env, merge_stderr=False)
    (repository / "Packages").write_text(index.output)
    codename = f"APT::FTPArchive::Release::Codename={definition.suite}"
    release = run(["apt-ftparchive", "-o", codename, "release", "."], cwd=repository, env=env)
    (repository / "Release").write_text(release.output)
    log.info(f"{len(packages)} packages, {log.size(sum(p.size for p in packages))}, from the lock")
    return repository
