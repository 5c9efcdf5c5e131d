"""The history of nights: an SQLite database of one table.

A night's row is there from its first second, so that one that was killed, or never ended, is seen as such.
A record is replaced in one transaction: readers see a night as it was or as it is.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from pipeline import records
from pipeline.errors import IntegrityError
from pipeline.nightly.night import Night, Outcome

FILE = "nights.sqlite"
_BUSY = 30.0
"""Seconds to wait for another writer."""
_TABLE = """
create table if not exists nights (
  number integer primary key autoincrement,
  release text not null,
  outcome text not null,
  started text not null,
  record blob not null
)
"""


@dataclass(frozen=True)
class Book:
    """The nights of one release, in a file."""

    path: Path
    release: str

    def begin(self, now: datetime) -> Night:
        """Note that a night begins now; those that still ran are noted as killed."""
        with self._open() as db:
            for night in self._read(db, "outcome = ?", Outcome.RUNNING):
                note = "The run ended without a word: killed, or the machine went down."
                self._write(db, msgspec.structs.replace(night, outcome=Outcome.KILLED, note=note))
            night = Night(number=0, release=self.release, started=now)
            row = (self.release, night.outcome, night.started.isoformat(), b"")
            number = db.execute(
                "insert into nights (release, outcome, started, record) values (?, ?, ?, ?)", row
            ).lastrowid
            assert number is not None
            night = msgspec.structs.replace(night, number=number)
            self._write(db, night)
        return night

    def write(self, night: Night) -> None:
        """Replace a night's record."""
        with self._open() as db:
            self._write(db, night)

    def nights(self, limit: int = -1) -> list[Night]:
        """The release's nights, the newest first."""
        if not self.path.exists():
            return []
        with self._open() as db:
            return self._read(db, "1", limit=limit)

    def last(self, outcome: Outcome) -> Night | None:
        """The newest night that ended so."""
        if not self.path.exists():
            return None
        with self._open() as db:
            found = self._read(db, "outcome = ?", outcome, limit=1)
        return found[0] if found else None

    def _write(self, db: sqlite3.Connection, night: Night) -> None:
        row = (night.outcome, night.started.isoformat(), records.encode(night), night.number)
        db.execute("update nights set outcome = ?, started = ?, record = ? where number = ?", row)

    def _read(self, db: sqlite3.Connection, where: str, *values: str, limit: int = -1) -> list[Night]:
        # ``where`` is one of this module's own words. By number, as the clock may have jumped.
        rows = db.execute(
            f"select record from nights where release = ? and {where} order by number desc limit ?",  # noqa: S608
            (self.release, *values, limit),
        )
        try:
            return [records.decode(record, Night) for (record,) in rows]
        except records.RecordError as e:
            raise self._damaged(str(e)) from e

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=_BUSY)) as db:
                db.execute("pragma journal_mode = wal")
                db.execute(_TABLE)
                with db:
                    yield db
        except sqlite3.OperationalError as e:
            # A full disk among them; what was there before stays.
            raise OSError(0, f"the history of nights: {e}", str(self.path)) from e
        except sqlite3.DatabaseError as e:
            raise self._damaged(str(e)) from e

    def _damaged(self, why: str) -> IntegrityError:
        return IntegrityError(
            f"{self.path} is damaged: {why}.", hint="Move it away; the next night begins a new one."
        )
