"""Subjects' keys in SQLite. A deleted key is gone for good: its rows' names can no longer be told from noise."""

import secrets
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

from data_contracts.digests import keyed_ref
from data_contracts.errors import Refused
from resources.sqlite import connect, create, empty_log

_TABLES = """
create table if not exists installation (id integer primary key check (id = 1), key blob not null);
create table if not exists subjects (subject text primary key, key blob);
create index if not exists erased on subjects (subject) where key is null;
"""
_ASKED_AT_ONCE = 500


class SqliteKeyring:
    """One random 32-byte key a subject, made when it is first asked for; one for the installation's pseudonyms."""

    def __init__(self, path: Path) -> None:
        self.path = path
        create(path, _TABLES)
        with connect(path) as db:
            db.execute("insert or ignore into installation values (1, ?)", (secrets.token_bytes(32),))
            self._pseudonyms: bytes = db.execute("select key from installation").fetchone()[0]

    def subject(self, identifier: str) -> str:
        return keyed_ref(self._pseudonyms, identifier)

    def key(self, subject: str) -> bytes:
        return self.keys([subject])[subject]

    def keys(self, subjects: Iterable[str]) -> Mapping[str, bytes]:
        """Keys of all these subjects, made where there is none yet. Raises `Refused` for an erased subject."""
        wanted = sorted(set(subjects))
        with connect(self.path) as db:
            found = _select(db, wanted)
            if missing := [each for each in wanted if each not in found]:
                fresh = ((each, secrets.token_bytes(32)) for each in missing)
                db.executemany("insert or ignore into subjects values (?, ?)", fresh)
                found |= _select(db, missing)
        for subject in wanted:
            if found[subject] is None:
                raise Refused(
                    f"subject {subject} was erased: its rows may not come in again; run the step again, which leaves "
                    "them out"
                )
        return {subject: key for subject, key in found.items() if key is not None}

    def known(self, subjects: Iterable[str]) -> Mapping[str, bytes]:
        """Keys of those subjects that have one; makes none."""
        with connect(self.path) as db:
            found = _select(db, sorted(set(subjects)))
        return {subject: key for subject, key in found.items() if key is not None}

    def erased(self, subjects: Iterable[str]) -> set[str]:
        """Those subjects whose key was destroyed."""
        with connect(self.path) as db:
            gone = {subject for (subject,) in db.execute("select subject from subjects where key is null")}
        return {subject for subject in subjects if subject in gone}

    def has(self, subject: str) -> bool:
        return subject in self.known([subject])

    def delete(self, subject: str) -> None:
        """Destroy the key, overwriting its bytes; the subject stays known as erased."""
        with connect(self.path) as db:
            db.execute("pragma secure_delete = on")
            db.execute("insert or ignore into subjects values (?, null)", (subject,))
            db.execute("update subjects set key = null where subject = ?", (subject,))
        empty_log(self.path)


def _select(db: sqlite3.Connection, subjects: list[str]) -> dict[str, bytes | None]:
    found: dict[str, bytes | None] = {}
    for start in range(0, len(subjects), _ASKED_AT_ONCE):
        some = subjects[start : start + _ASKED_AT_ONCE]
        marks = ",".join("?" * len(some))
        found.update(db.execute(f"select subject, key from subjects where subject in ({marks})", some).fetchall())
    return found
