"""The provenance ledger in SQL: one line a row, found by row, parent, subject or date; which data sets there are."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TypeVar

from data_contracts.digests import Digest, hex_of, raw, sha256_json
from data_contracts.ledger import Expiring, LedgerEntry, Origin
from resources.database import Database, PostgresDatabase, Session, SqliteDatabase

_TABLES = """
create table if not exists origins (
  origin bigint primary key, entry text not null, derived smallint not null, retain_until text
);
create index if not exists origins_retain_until on origins (retain_until);
create table if not exists ledger (name bytea primary key, subject text not null, origin bigint not null);
create index if not exists ledger_subject on ledger (subject);
create index if not exists ledger_origin on ledger (origin);
create table if not exists links (child bytea not null, parent bytea not null, primary key (child, parent));
create index if not exists links_parent on links (parent);
create table if not exists sets (root text not null, manifest text not null, primary key (root, manifest))
"""
_ASKED_AT_ONCE = 1000
_FARTHEST = 64
"""Generations that are followed; a chain of parents is as long as the data line, times the depth of its synthesis."""
T = TypeVar("T")


class SqlLedger:
    """The first entry of a row stands; parents that a later run finds are added to it.

    What the rows of a source share (``origins``) is kept once, under 63 bits of its digest.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def record(self, entries: Iterable[LedgerEntry]) -> int:
        origins: dict[int, tuple[int, str, int, str | None]] = {}
        known: dict[tuple[str, bool], int] = {}
        lines: list[tuple[bytes, str, int]] = []
        links: list[tuple[bytes, bytes]] = []
        for entry in entries:
            shared = entry.origin.text, bool(entry.parents)
            if shared not in known:
                origin = _origin(*shared, entry.origin.retain_until)
                known[shared] = origin[0]
                origins[origin[0]] = origin
            name = _bytes(entry.row)
            lines.append((name, entry.subject, known[shared]))
            links += [(name, _bytes(parent)) for parent in entry.parents]
        # In the order of their keys: the index grows page by page, and two writers never wait for each other in a ring.
        with self.database.session() as session:
            session.insert("origins", sorted(origins.values()))
            added = session.insert("ledger", sorted(lines))
            session.insert("links", sorted(links))
        return added

    def entry(self, row: Digest) -> LedgerEntry | None:
        return self.entries([row]).get(row)

    def entries(self, rows: Iterable[Digest]) -> Mapping[Digest, LedgerEntry]:
        wanted = sorted({_bytes(row) for row in rows})
        found: dict[Digest, LedgerEntry] = {}
        origins: dict[int, Origin] = {}
        with self.database.session() as session:
            for some in _chunks(wanted):
                marks = _marks(some)
                parents: defaultdict[bytes, list[Digest]] = defaultdict(list)
                for child, parent in session.query(
                    f"select child, parent from links where child in ({marks}) order by child, parent", some
                ):
                    parents[child].append(_digest(parent))
                lines = session.query(f"select name, subject, origin from ledger where name in ({marks})", some)
                origins |= _origins(session, {origin for _, _, origin in lines} - origins.keys())
                for name, subject, origin in lines:
                    row = _digest(name)
                    found[row] = LedgerEntry(
                        row=row, subject=subject, parents=tuple(parents[name]), origin=origins[origin]
                    )
        return found

    def missing(self, rows: Iterable[Digest]) -> list[Digest]:
        wanted = sorted({_bytes(row) for row in rows})
        with self.database.session() as session:
            known = {
                name
                for some in _chunks(wanted)
                for (name,) in session.query(f"select name from ledger where name in ({_marks(some)})", some)
            }
        return [_digest(name) for name in wanted if name not in known]

    def ancestors(self, row: Digest) -> list[Digest]:
        return self._reached(row, "child", "parent")

    def descendants(self, row: Digest) -> list[Digest]:
        return self._reached(row, "parent", "child")

    def _reached(self, row: Digest, here: str, there: str) -> list[Digest]:
        """All rows that links lead to, nearest first."""
        with self.database.session() as session:
            found = session.query(
                f"with recursive reached (name, far) as (select {there}, 1 from links where {here} = ? "
                f"union select {there}, far + 1 from links join reached on {here} = name where far < {_FARTHEST}) "
                "select name, min(far) from reached group by name order by 2, 1",
                (_bytes(row),),
            )
        return [_digest(name) for name, _ in found]

    def rows_of(self, subject: str) -> list[Digest]:
        with self.database.session() as session:
            found = session.query("select name from ledger where subject = ? order by name", (subject,))
        return [_digest(name) for (name,) in found]

    def expiring(self, before: date) -> list[Expiring]:
        with self.database.session() as session:
            found = session.query(
                "select entry, derived, (select count(*) from ledger where ledger.origin = origins.origin) "
                "from origins where retain_until < ?",
                (before.isoformat(),),
            )
        counted: defaultdict[tuple[date, str, Digest], list[int]] = defaultdict(lambda: [0, 0])
        for text, derived, rows in found:
            origin = Origin.model_validate_json(text)
            if origin.retain_until is not None:
                counted[origin.retain_until, origin.source, origin.contract][derived] += rows
        return [
            Expiring(retain_until=day, source=source, contract=contract, records=records, derived=derived)
            for (day, source, contract), (records, derived) in sorted(counted.items())
        ]

    def record_set(self, root: Digest, manifest: Digest) -> None:
        with self.database.session() as session:
            session.insert("sets", [(root, manifest)])

    def sets(self) -> Sequence[tuple[Digest, Digest]]:
        with self.database.session() as session:
            return [
                (root, manifest) for root, manifest in session.query("select root, manifest from sets order by 1, 2")
            ]


def open_ledger(url: str, path: Path) -> SqlLedger:
    """The ledger at a ``postgresql://`` url, or in a SQLite file where there is none."""
    return SqlLedger(PostgresDatabase(url, _TABLES, "ASSAY_LEDGER") if url else SqliteDatabase(path, _TABLES))


def _origin(text: str, derived: bool, until: date | None) -> tuple[int, str, int, str | None]:
    number = int(hex_of(sha256_json([text, derived]))[:16], 16) >> 1
    return number, text, int(derived), until.isoformat() if until else None


def _origins(session: Session, wanted: set[int]) -> dict[int, Origin]:
    return {
        origin: Origin.model_validate_json(entry)
        for some in _chunks(sorted(wanted))
        for origin, entry in session.query(f"select origin, entry from origins where origin in ({_marks(some)})", some)
    }


def _chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), _ASKED_AT_ONCE):
        yield values[start : start + _ASKED_AT_ONCE]


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def _bytes(name: Digest) -> bytes:
    return raw(name)


def _digest(name: bytes) -> Digest:
    return f"sha256:{name.hex()}"
