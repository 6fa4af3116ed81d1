"""The provenance ledger in SQLite: one entry a row, found by row, parent or subject."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from data_contracts.digests import Digest
from data_contracts.ledger import LedgerEntry
from resources.sqlite import connect, create

_TABLES = """
create table if not exists entries (row text primary key, subject text not null, entry text not null);
create index if not exists entries_subject on entries (subject);
create table if not exists parents (row text not null, parent text not null, primary key (row, parent)) without rowid;
create index if not exists parents_parent on parents (parent);
"""
_ASKED_AT_ONCE = 500


class SqliteLedger:
    """The first entry of a row stands; parents that a later run finds are added to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        create(path, _TABLES)

    def record(self, entries: Iterable[LedgerEntry]) -> None:
        listed = list(entries)
        with connect(self.path) as db:
            db.executemany(
                "insert or ignore into entries values (?, ?, ?)",
                ((e.row, e.subject, e.model_copy(update={"parents": ()}).model_dump_json()) for e in listed),
            )
            db.executemany(
                "insert or ignore into parents values (?, ?)", ((e.row, parent) for e in listed for parent in e.parents)
            )

    def entry(self, row: Digest) -> LedgerEntry | None:
        return self.entries([row]).get(row)

    def entries(self, rows: Iterable[Digest]) -> Mapping[Digest, LedgerEntry]:
        wanted = sorted(set(rows))
        found: dict[Digest, LedgerEntry] = {}
        with connect(self.path) as db:
            for start in range(0, len(wanted), _ASKED_AT_ONCE):
                some = wanted[start : start + _ASKED_AT_ONCE]
                marks = ",".join("?" * len(some))
                parents: dict[Digest, list[Digest]] = {}
                for row, parent in db.execute(
                    f"select row, parent from parents where row in ({marks}) order by row, parent", some
                ):
                    parents.setdefault(row, []).append(parent)
                for row, entry in db.execute(f"select row, entry from entries where row in ({marks})", some):
                    found[row] = LedgerEntry.model_validate(json.loads(entry) | {"parents": parents.get(row, [])})
        return found

    def missing(self, rows: Iterable[Digest]) -> list[Digest]:
        wanted = sorted(set(rows))
        known = self.entries(wanted)
        return [row for row in wanted if row not in known]

    def rows_of(self, subject: str) -> list[Digest]:
        with connect(self.path) as db:
            return [row for (row,) in db.execute("select row from entries where subject = ? order by row", (subject,))]

    def children(self, row: Digest) -> list[Digest]:
        with connect(self.path) as db:
            return [found for (found,) in db.execute("select row from parents where parent = ? order by row", (row,))]
