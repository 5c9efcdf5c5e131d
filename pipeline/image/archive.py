"""The Arch Linux Archive: where a day's databases and packages lie, and how its databases are read.

Layout: https://wiki.archlinux.org/title/Arch_Linux_Archive. The packages of the first years have moved to
archive.org, one item a package name; the archive redirects there. A database is a tar of one folder a
package, with a file ``desc`` of ``%KEY%`` lines, each followed by its values and an empty line.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import libarchive
import msgspec
from libarchive.exception import ArchiveError as ArchiveFormatError

from pipeline import log
from pipeline.errors import HostError, IntegrityError
from pipeline.image.lock import LockedDatabase, LockedPackage
from pipeline.mirrors import Mirrors
from pipeline.store import Store
from pipeline.transport import Limits, RefusedError, TransientError, Transport, shown

ARCHIVE = "https://archive.archlinux.org"
ITEMS = "https://archive.org/download"

_DATABASE_LIMIT = 256 << 20
_DESC_LIMIT = 1 << 20
_ENTRIES_LIMIT = 200_000
SIGNATURE_LIMIT = 64 << 10
_ROUNDS = 3


class ArchiveError(HostError):
    """The archive does not answer, or has not what was asked for."""


class DatabaseError(IntegrityError):
    """Bytes are no database of packages."""


@dataclass(frozen=True)
class Entry:
    """One package of a database; ``signature`` is the binary OpenPGP one, where the database has it."""

    repository: str
    name: str
    version: str
    file: str
    size: int
    sha256: str
    signature: bytes | None

    def locked(self, signature: str) -> LockedPackage:
        """The entry in a lock; ``signature`` says how far its signature was verified."""
        values = {
            "repository": self.repository,
            "name": self.name,
            "version": self.version,
            "file": self.file,
            "size": self.size,
            "sha256": self.sha256,
            "signature": signature,
        }
        try:
            return msgspec.convert(values, LockedPackage)
        except msgspec.ValidationError as e:
            raise DatabaseError(f"{self.repository}'s database has a package that cannot be: {e}.") from e


def database_url(snapshot: str, repository: str) -> str:
    """Where a repository's database of a day (YYYY-MM-DD) lies."""
    return f"{_folder(snapshot, repository)}/{repository}.db"


def package_urls(snapshot: str) -> tuple[str, ...]:
    """The places where the archive may have a day's packages; see ArchLock.urls."""
    return (
        f"{_folder(snapshot, '{repository}')}/{{file}}",
        f"{ARCHIVE}/packages/{{initial}}/{{name}}/{{file}}",
        f"{ITEMS}/archlinux_pkg_{{item}}/{{file}}",
    )


def _folder(snapshot: str, repository: str) -> str:
    return f"{ARCHIVE}/repos/{snapshot.replace('-', '/')}/{repository}/os/x86_64"


def fetch_databases(
    snapshot: str, repositories: Sequence[str], store: Store, mirrors: Mirrors
) -> tuple[LockedDatabase, ...]:
    """Bring a day's databases into the store; from here on, their hashes are what counts."""

    def one(repository: str) -> LockedDatabase:
        url = database_url(snapshot, repository)
        data = download([url], mirrors, _DATABASE_LIMIT)
        with store.writer() as writer:
            writer.write(data)
            entry = writer.commit(None)
        return LockedDatabase(repository=repository, url=url, size=len(data), sha256=entry.name)

    with ThreadPoolExecutor(len(repositories)) as pool:
        return tuple(pool.map(one, repositories))


def download(urls: Sequence[str], mirrors: Mirrors, limit: int) -> bytes:
    """Return what the first of some URLs gives: bytes that are not pinned yet, ``limit`` of them at most.

    Raises ArchiveError saying why each URL did not.
    """
    todo = [resolved for url in urls for resolved in mirrors.resolve(url)]
    transport = Transport(Limits(), 1)
    reasons: dict[str, str] = {}
    for _ in range(_ROUNDS):
        for url in list(todo):
            try:
                return _read(transport, url, limit)
            except RefusedError as e:
                todo.remove(url)
                reasons[url] = e.message
            except TransientError as e:
                if e.unreachable:
                    todo.remove(url)
                reasons[url] = e.message
        if not todo:
            break
    details = "; ".join(f"{shown(url)}: {reason}" for url, reason in reasons.items())
    raise ArchiveError(f"The Arch Linux Archive did not give what was asked for ({details}).")


def _read(transport: Transport, url: str, limit: int) -> bytes:
    data = bytearray()
    with transport.open(url, 0, None) as body:
        while block := body.read(1 << 20):
            data += block
            if len(data) > limit:
                raise RefusedError(f"sends more than {log.size(limit)}")
    return bytes(data)


def read_database(path: Path, repository: str, only: Container[str] | None = None) -> dict[str, Entry]:
    """Read a database into its entries by package name.

    ``only`` names the packages, as NAME-VERSION, that are wanted: the others are not looked into. Raises
    DatabaseError for anything that is not a database.
    """
    entries: dict[str, Entry] = {}
    try:
        with libarchive.file_reader(str(path)) as archive:
            for number, member in enumerate(archive):
                if number >= _ENTRIES_LIMIT:
                    raise DatabaseError(f"{repository}'s database has more than {_ENTRIES_LIMIT} members.")
                folder, _, file = str(member.pathname).rpartition("/")
                if not member.isfile or file != "desc" or (only is not None and folder not in only):
                    continue
                if (member.size or 0) > _DESC_LIMIT:
                    raise DatabaseError(f"{repository}'s database has a member of {member.size} bytes.")
                entry = parse_entry(b"".join(member.get_blocks()), repository)
                if entry.name in entries:
                    raise DatabaseError(f"{repository}'s database has {entry.name} twice.")
                entries[entry.name] = entry
    except ArchiveFormatError as e:
        raise DatabaseError(f"{repository}'s database cannot be read: {e.msg}.") from e
    return entries


def parse_entry(data: bytes, repository: str) -> Entry:
    """Read one package's ``desc``; raises DatabaseError naming what is wrong with it."""
    try:
        fields = _fields(data.decode())
        signature = fields.get("PGPSIG")
        return Entry(
            repository=repository,
            name=fields["NAME"],
            version=fields["VERSION"],
            file=fields["FILENAME"],
            size=int(fields["CSIZE"]),
            sha256=fields["SHA256SUM"],
            signature=None if signature is None else base64.b64decode(signature, validate=True),
        )
    except KeyError as e:
        raise DatabaseError(f"A package of {repository}'s database has no {e.args[0]}.") from e
    except (ValueError, binascii.Error) as e:
        raise DatabaseError(f"A package of {repository}'s database is malformed: {e}.") from e


def _fields(text: str) -> dict[str, str]:
    """Take each key's first value; those that are wanted here have one only."""
    fields: dict[str, str] = {}
    for block in text.split("\n\n"):
        key, _, rest = block.strip("\n").partition("\n")
        if key.startswith("%") and key.endswith("%"):
            fields.setdefault(key.strip("%"), rest.partition("\n")[0])
    return fields
