"""Feedback and kept exchanges in SQL, beside the traces; and what is sealed until the collector has scrubbed it. All of
it comes through a spool."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from data_contracts.feedback import Exchange, Feedback, Sealed
from data_contracts.frozen import Frozen
from data_contracts.traces import Position, TraceCounts
from resources.database import Database, PostgresDatabase, Session, SqliteDatabase, Value, column, number
from resources.durable_spool import LIMIT, DurableSpool
from resources.sqlite import empty_log

_TABLES = """
create table if not exists exchanges (
  trace_id text primary key, time bigint not null, product text not null, subject text not null, body text not null
);
create index if not exists exchanges_product on exchanges (product, time, trace_id);
create index if not exists exchanges_subject on exchanges (subject) where subject <> '';
create table if not exists feedback (
  feedback_id text primary key, time bigint not null, product text not null, trace_id text not null,
  author text not null, body text not null
);
create index if not exists feedback_product on feedback (product, time, feedback_id);
create index if not exists feedback_trace on feedback (trace_id);
create index if not exists feedback_author on feedback (author);
create table if not exists sealed (name text primary key, time bigint not null, body text not null);
create index if not exists sealed_time on sealed (time, name)
"""
_PATIENCE_S = 30
_AT_ONCE = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNCORRECTED = '%"correction":null%'
"""Of a body as it is written. In a text that somebody wrote each quote has a backslash before it."""


class Spooled(Frozen):
    """A line of the spool: one of these."""

    exchange: Exchange | None = None
    feedback: Feedback | None = None
    sealed: Sealed | None = None


class SqlFeedback:
    """Implements `pipelines.stages.protocols.FeedbackStore`. ``folder`` is the spool's; ``file`` the SQLite file, where
    it is one."""

    def __init__(self, database: Database, folder: Path, file: Path | None = None, limit: int = LIMIT) -> None:
        self.database = database
        self.spool = DurableSpool(folder, Spooled, self._take, limit, name="feedback")
        self._file = file

    def add(self, feedback: Feedback) -> None:
        self._add(Spooled(feedback=feedback))

    def add_exchange(self, exchange: Exchange) -> None:
        self._add(Spooled(exchange=exchange))

    def add_sealed(self, sealed: Sealed) -> bool:
        return self._add(Spooled(sealed=sealed))

    def resume(self) -> None:
        self.spool.start()

    def flush(self, seconds: float = 30) -> bool:
        return self.spool.flush(seconds)

    def close(self, seconds: float = 2) -> None:
        self.spool.close(seconds)

    def counts(self) -> TraceCounts:
        return self.spool.counts()

    def exchange(self, trace_id: str) -> Exchange | None:
        found = column(self.database, "select body from exchanges where trace_id = ?", trace_id)
        return Exchange.model_validate_json(found[0]) if found else None

    def exchanges(self, product: str, after: Position | None, until: datetime, limit: int) -> list[Exchange]:
        place = after or Position(_EPOCH, "")
        found = column(
            self.database,
            "select body from exchanges where product = ? and (time, trace_id) > (?, ?) and time <= ? "
            "order by time, trace_id limit ?",
            *(product, _micros(place.time), place.trace_id, _micros(until), limit),
        )
        return [Exchange.model_validate_json(body) for body in found]

    def of_trace(self, trace_id: str) -> list[Feedback]:
        found = column(
            self.database, "select body from feedback where trace_id = ? order by time, feedback_id", trace_id
        )
        return [Feedback.model_validate_json(body) for body in found]

    def feedback(self, product: str, since: datetime, until: datetime) -> list[Feedback]:
        found = column(
            self.database,
            "select body from feedback where product = ? and time >= ? and time < ? order by time, feedback_id",
            *(product, _micros(since), _micros(until)),
        )
        return [Feedback.model_validate_json(body) for body in found]

    def corrected(self, product: str, since: datetime, until: datetime) -> int:
        """The database counts: of a release that has been live for long there is much to read."""
        return number(
            self.database,
            "select count(distinct trace_id) from feedback where product = ? and time >= ? and time < ? "
            "and body not like ?",
            *(product, _micros(since), _micros(until), _UNCORRECTED),
        )

    def sealed(self, after: Sealed | None, limit: int) -> list[Sealed]:
        place = (_micros(after.time), after.name) if after else (-1, "")
        found = column(
            self.database,
            "select body from sealed where (time, name) > (?, ?) order by time, name limit ?",
            *place,
            limit,
        )
        return [Sealed.model_validate_json(body) for body in found]

    def settle(self, sealed: Sealed, kept: Exchange | Feedback | None) -> None:
        with self.database.session() as session:
            if isinstance(kept, Exchange):
                session.insert("exchanges", list(_exchange_rows([kept])))
            if isinstance(kept, Feedback):
                session.insert("feedback", list(_feedback_rows([kept])))
            session.query("delete from sealed where name = ?", (sealed.name,))

    def products(self) -> list[str]:
        return column(self.database, "select product from exchanges union select product from feedback order by 1")

    def older(self, product: str, before: datetime) -> tuple[int, int]:
        older = "where product = ? and time < ?"
        return (
            number(self.database, f"select count(*) from exchanges {older}", product, _micros(before)),
            number(self.database, f"select count(*) from feedback {older}", product, _micros(before)),
        )

    def delete(self, product: str, before: datetime) -> tuple[int, int]:
        """In short transactions: who writes waits for one at most."""
        gone = [0, 0]
        while any(left := self.older(product, before)):
            for place, (table, key) in enumerate((("exchanges", "trace_id"), ("feedback", "feedback_id"))):
                some = f"select {key} from {table} where product = ? and time < ? limit {_AT_ONCE}"
                with self.database.session() as session:
                    session.query(f"delete from {table} where {key} in ({some})", (product, _micros(before)))
                gone[place] += min(left[place], _AT_ONCE)
        return gone[0], gone[1]

    def held(self, subjects: Collection[str]) -> int:
        with self.database.session() as session:
            return sum(
                int(session.query(f"select count(*) from {table} where {where}", some * times)[0][0])
                for some, marks in _parts(subjects)
                for table, where, times in _of_subjects(marks)
            )

    def forget(self, subjects: Collection[str]) -> None:
        """In PostgreSQL freed space is overwritten when its own vacuum has run."""
        with self.database.session() as session:
            for some, marks in _parts(subjects):
                for table, where, times in _of_subjects(marks):
                    session.query(f"delete from {table} where {where}", some * times)
        if self._file is not None:
            empty_log(self._file)

    def _add(self, line: Spooled) -> bool:
        self.spool.start()
        return self.spool.add(line)

    def _take(self, segment: str, kept: Sequence[Spooled]) -> int:
        """What the spool holds, into the store; how many were not there yet."""
        with self.database.session() as session:
            return (
                _insert(session, "exchanges", _exchange_rows(each.exchange for each in kept if each.exchange))
                + _insert(session, "feedback", _feedback_rows(each.feedback for each in kept if each.feedback))
                + _insert(session, "sealed", _sealed_rows(each.sealed for each in kept if each.sealed))
            )


def open_feedback(url: str, file: Path, spool: Path, limit: int = LIMIT) -> SqlFeedback:
    """In PostgreSQL, the traces' own, when there is a url, else in a SQLite file; ``spool`` is a folder of this
    machine."""
    if url:
        return SqlFeedback(PostgresDatabase(url, _TABLES, "ASSAY_TRACES", _PATIENCE_S), spool, limit=limit)
    return SqlFeedback(SqliteDatabase(file, _TABLES, erases=True), spool, file, limit)


def _parts(subjects: Collection[str]) -> Iterator[tuple[list[str], str]]:
    """Some at a time, with marks for them."""
    wanted = sorted(subjects)
    for start in range(0, len(wanted), _AT_ONCE):
        some = wanted[start : start + _AT_ONCE]
        yield some, ",".join("?" * len(some))


def _of_subjects(marks: str) -> tuple[tuple[str, str, int], ...]:
    """Table, condition, and how often it names the subjects. Feedback first: it is found by the exchanges."""
    theirs = f"select trace_id from exchanges where subject in ({marks})"
    return (
        ("feedback", f"author in ({marks}) or trace_id in ({theirs})", 2),
        ("exchanges", f"subject in ({marks})", 1),
    )


def _insert(session: Session, table: str, rows: Iterator[tuple[Value, ...]]) -> int:
    return session.insert(table, list(rows))


def _exchange_rows(exchanges: Iterable[Exchange]) -> Iterator[tuple[Value, ...]]:
    for each in exchanges:
        yield each.trace_id, _micros(each.time), each.product, each.subject or "", each.model_dump_json()


def _feedback_rows(feedback: Iterable[Feedback]) -> Iterator[tuple[Value, ...]]:
    for each in feedback:
        yield (
            each.feedback_id,
            _micros(each.time),
            each.product,
            each.trace_id,
            each.author,
            each.model_dump_json(),
        )


def _sealed_rows(sealed: Iterable[Sealed]) -> Iterator[tuple[Value, ...]]:
    for each in sealed:
        yield each.name, _micros(each.time), each.model_dump_json()


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)
