"""Traces in SQL, metadata of every answer: counted over real columns, read back whole. They come through a spool."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from filelock import FileLock

from data_contracts.digests import Digest
from data_contracts.frozen import Frozen
from data_contracts.rollbacks import Saw
from data_contracts.traces import Position, Residence, SealedWindow, ShadowTrace, Trace, TraceCounts, Usage
from resources.database import Database, PostgresDatabase, SqliteDatabase, Value, column, number
from resources.durable_spool import LIMIT, DurableSpool
from resources.sqlite import connect
from resources.token_tally import Tokens, TokenTally

_TABLES = """
create table if not exists traces (
  trace_id text primary key, time bigint not null, tenant text not null, product text not null, release text,
  status integer not null, prompt_tokens bigint not null, completion_tokens bigint not null, failed text not null,
  body text not null
);
create index if not exists traces_product on traces (product, time);
create index if not exists traces_release on traces (product, release, status, time, trace_id, tenant);
create index if not exists traces_usage on traces (time, tenant, product, prompt_tokens, completion_tokens);
create index if not exists traces_failed on traces (product, time) where failed <> '';
create table if not exists shadows (
  trace_id text primary key, time bigint not null, product text not null, body text not null
);
create index if not exists shadows_product on shadows (product, time);
create table if not exists residences (
  tenant text not null, product text not null, time bigint not null, byte_seconds bigint not null,
  primary key (product, tenant, time)
);
create table if not exists traffic_windows (
  release text not null, shape text not null, number bigint not null, body text not null,
  primary key (release, shape, number)
)
"""
_PATIENCE_S = 30
"""Seconds in which PostgreSQL has to say something; no answer waits for it."""
_AT_ONCE = 5_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = Position(_EPOCH, "")


class Spooled(Frozen):
    """A line of the spool: one of these."""

    trace: Trace | None = None
    shadow: ShadowTrace | None = None
    residence: Residence | None = None


class SqlTraces:
    """Implements `pipelines.stages.protocols.TraceStore`. ``folder`` is the spool's."""

    def __init__(self, database: Database, folder: Path, limit: int = LIMIT) -> None:
        self.database = database
        self.spool = DurableSpool(folder, Spooled, self._take, limit)
        self._tally = TokenTally(folder / "tokens.json", self._tokens)
        self._resuming = threading.Lock()
        self._resumed = False

    def resume(self) -> None:
        with self._resuming:
            if not self._resumed:
                left = ((name, [each.trace for each in kept if each.trace]) for name, kept in self.spool.left())
                self._tally.load(left)
                self._resumed = True
            self.spool.start()

    def add(self, trace: Trace) -> None:
        self.resume()
        self.spool.add(Spooled(trace=trace))

    def add_shadow(self, shadow: ShadowTrace) -> None:
        self.resume()
        self.spool.add(Spooled(shadow=shadow))

    def add_residence(self, residence: Residence) -> None:
        self.resume()
        self.spool.add(Spooled(residence=residence))

    def flush(self, seconds: float = 30) -> bool:
        return self.spool.flush(seconds)

    def close(self, seconds: float = 2) -> None:
        self.spool.close(seconds)

    def counts(self) -> TraceCounts:
        return self.spool.counts()

    def spent_before(self, tenant: str, day: date) -> tuple[int, int]:
        self.resume()
        return self._tally.before(tenant, day)

    def get(self, trace_id: str) -> Trace | None:
        found = column(self.database, "select body from traces where trace_id = ?", trace_id)
        return Trace.model_validate_json(found[0]) if found else None

    def recent(self, product: str, limit: int) -> list[Trace]:
        """Newest first."""
        sql = "select body from traces where product = ? order by time desc limit ?"
        return [Trace.model_validate_json(body) for body in column(self.database, sql, product, limit)]

    def since(self, product: str, time: datetime) -> list[Trace]:
        """Of answers that ended then or later, the oldest first."""
        sql = "select body from traces where product = ? and time >= ? order by time"
        return [Trace.model_validate_json(body) for body in column(self.database, sql, product, _micros(time))]

    def answered(self, product: str, release: Digest) -> int:
        return number(self.database, "select count(*) from traces where product = ? and release = ?", product, release)

    def whole_answers(
        self, product: str, release: Digest, after: Position | None, until: datetime, limit: int
    ) -> list[Trace]:
        place = after or _FIRST
        sql = (
            "select body from traces where product = ? and release = ? and status = 200 "
            "and (time, trace_id) > (?, ?) and time <= ? order by time, trace_id limit ?"
        )
        found = column(self.database, sql, product, release, _micros(place.time), place.trace_id, _micros(until), limit)
        return [Trace.model_validate_json(body) for body in found]

    def whole_between(self, product: str, release: Digest, after: Position | None, until: Position) -> int:
        place = after or _FIRST
        return number(
            self.database,
            "select count(*) from traces where product = ? and release = ? and status = 200 "
            "and (time, trace_id) > (?, ?) and (time, trace_id) <= (?, ?)",
            *(product, release, _micros(place.time), place.trace_id, _micros(until.time), until.trace_id),
        )

    def failures(self, product: str, release: Digest, after: datetime, until: datetime) -> list[datetime]:
        when = "time > ? and time <= ?"
        span = _micros(after), _micros(until)
        own = f"select trace_id, time from traces where product = ? and release = ? and status {{}} 200 and {when}"
        sql = (
            f"{own.format('<')} union {own.format('>')} union "
            f"select trace_id, time from traces where product = ? and failed <> '' and failed like ? and {when}"
        )
        of = (product, release, *span)
        with self.database.session() as session:
            rows = session.query(f"{sql} order by 2", (*of, *of, product, f"%{release}%", *span))
        return [_time(int(time)) for _, time in rows]

    def seal(self, release: Digest, shape: Digest, windows: Sequence[SealedWindow]) -> None:
        with self.database.session() as session:
            rows = [(release, shape, each.number, each.model_dump_json()) for each in windows]
            session.insert("traffic_windows", rows)

    def sealed(self, release: Digest, shape: Digest, newest: int) -> list[SealedWindow]:
        of = "from traffic_windows where release = ? and shape = ?"
        sql = f"select body {of} and (number = 0 or number > (select max(number) {of}) - ?) order by number"
        return [
            SealedWindow.model_validate_json(each) for each in column(self.database, sql, *(release, shape) * 2, newest)
        ]

    def saw(self, product: str, release: Digest, since: datetime) -> list[Saw]:
        """By tenant: answers of this release and requests that it failed, of those that ended then or later."""
        start, named = _micros(since), f"%{release}%"
        with self.database.session() as session:
            rows = session.query(
                "select tenant, sum(good), sum(1 - good), min(time), max(time) from ("
                "select tenant, time, case when status = 200 then 1 else 0 end as good from traces "
                "where product = ? and release = ? and time >= ? union all "
                "select tenant, time, 0 from traces where product = ? and failed <> '' and failed like ? "
                "and time >= ? and (release is null or release <> ?)) as seen group by tenant order by tenant",
                (product, release, start, product, named, start, release),
            )
        return [
            Saw(tenant=tenant, answers=int(good), failed=int(bad), first=_time(first), last=_time(last))
            for tenant, good, bad, first, last in rows
        ]

    def shadows(self, product: str, since: datetime) -> list[ShadowTrace]:
        """Those that ended then or later, the oldest first."""
        sql = "select body from shadows where product = ? and time >= ? order by time"
        return [ShadowTrace.model_validate_json(body) for body in column(self.database, sql, product, _micros(since))]

    def usage(self, since: datetime | None, until: datetime | None) -> list[Usage]:
        bounds = [("time >= ?", since), ("time < ?", until)]
        where = " and ".join(condition for condition, time in bounds if time)
        of = f"{f'where {where} ' if where else ''}group by tenant, product"
        times = [_micros(time) for _, time in bounds if time]
        with self.database.session() as session:
            rows = session.query(
                "select tenant, product, sum(n), sum(i), sum(o), sum(b) from ("
                "select tenant, product, count(*) as n, sum(prompt_tokens) as i, sum(completion_tokens) as o, 0 as b "
                f"from traces {of} union all "
                f"select tenant, product, 0, 0, 0, sum(byte_seconds) from residences {of}"
                ") as used group by tenant, product",
                times * 2,
            )
        return [
            Usage(
                tenant=tenant,
                product=product,
                requests=int(requests),
                prompt_tokens=int(prompts),
                completion_tokens=int(answers),
                byte_seconds=int(memory),
            )
            for tenant, product, requests, prompts, answers, memory in rows
        ]

    def products(self) -> list[str]:
        with self.database.session() as session:
            rows = session.query(
                "select product from traces union select product from shadows "
                "union select product from residences order by 1"
            )
        return [product for (product,) in rows]

    def older(self, product: str, traces: datetime, shadows: datetime) -> tuple[int, int]:
        older = "where product = ? and time < ?"
        return (
            number(self.database, f"select count(*) from traces {older}", product, _micros(traces)),
            number(self.database, f"select count(*) from shadows {older}", product, _micros(shadows)),
        )

    def delete(self, product: str, traces: datetime, shadows: datetime) -> None:
        """In many short transactions: who writes waits for one at most. Residences go as traces do."""
        with self.database.session() as session:
            session.query("delete from residences where product = ? and time < ?", (product, _micros(traces)))
        while any(self.older(product, traces, shadows)):
            for table, time in (("traces", traces), ("shadows", shadows)):
                some = f"select trace_id from {table} where product = ? and time < ? limit {_AT_ONCE}"
                with self.database.session() as session:
                    session.query(f"delete from {table} where trace_id in ({some})", (product, _micros(time)))

    def _take(self, segment: str, kept: Sequence[Spooled]) -> int:
        """What the spool holds, into the store; how many were not there yet."""
        traces = [each.trace for each in kept if each.trace]
        with self.database.session() as session:
            new = session.insert("traces", list(_rows(traces)))
            new += session.insert("shadows", list(_shadow_rows(each.shadow for each in kept if each.shadow)))
            new += session.insert("residences", [_residence_row(each.residence) for each in kept if each.residence])
        self._tally.count(segment, traces)
        return new

    def _tokens(self, day: date) -> Tokens:
        """By tenant, of this day and of its month."""
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        today, month = _micros(midnight), _micros(midnight.replace(day=1))
        with self.database.session() as session:
            rows = session.query(
                "select tenant, sum(case when time >= ? then prompt_tokens + completion_tokens else 0 end), "
                "sum(prompt_tokens + completion_tokens) from traces where time >= ? group by tenant",
                (today, month),
            )
        found = [((tenant, f"{day:%Y-%m-%d}"), int(tokens)) for tenant, tokens, _ in rows]
        return dict(found) | {(tenant, f"{day:%Y-%m}"): int(tokens) for tenant, _, tokens in rows}


def open_traces(url: str, file: Path, spool: Path, limit: int = LIMIT) -> SqlTraces:
    """In PostgreSQL when there is a url, else in a SQLite file; ``spool`` is a folder of this machine."""
    if url:
        return SqlTraces(PostgresDatabase(url, _TABLES, "ASSAY_TRACES", _PATIENCE_S), spool, limit)
    _take_over(file)
    return SqlTraces(SqliteDatabase(file, _TABLES), spool, limit)


def _take_over(file: Path) -> None:
    """A file of an earlier version held JSON alone, in tables of the same names."""
    if not file.exists():
        return
    with FileLock(f"{file}.lock", mode=0o600), connect(file) as old:
        columns = [name for _, name, *_ in old.execute("pragma table_info(traces)")]
        if "body" not in columns or "tenant" in columns:
            return
        old.execute("begin immediate")
        old.execute("create table if not exists shadows (body text)")  # still older ones had none
        made = "select name from sqlite_master where type = 'index' and sql is not null"
        for (index,) in old.execute(made).fetchall():
            old.execute(f"drop index {index}")
        for table in ("traces", "shadows"):
            old.execute(f"alter table {table} rename to old_{table}")
        for statement in filter(str.strip, _TABLES.split(";")):
            old.execute(statement)
        traces = (Trace.model_validate_json(body) for (body,) in old.execute("select body from old_traces"))
        old.executemany(f"insert into traces values ({','.join('?' * 10)})", _rows(traces))
        shadows = (ShadowTrace.model_validate_json(body) for (body,) in old.execute("select body from old_shadows"))
        old.executemany("insert into shadows values (?, ?, ?, ?)", _shadow_rows(shadows))
        for table in ("traces", "shadows"):
            old.execute(f"drop table old_{table}")


def _rows(traces: Iterable[Trace]) -> Iterator[tuple[Value, ...]]:
    for each in traces:
        yield (
            each.trace_id,
            _micros(each.time),
            each.tenant,
            each.product,
            each.release,
            each.status,
            each.prompt_tokens,
            each.completion_tokens,
            " ".join(each.failed),
            each.model_dump_json(),
        )


def _shadow_rows(shadows: Iterable[ShadowTrace]) -> Iterator[tuple[Value, ...]]:
    for each in shadows:
        yield each.trace_id, _micros(each.time), each.product, each.model_dump_json()


def _residence_row(each: Residence) -> tuple[Value, ...]:
    return each.tenant, each.product, _micros(each.time), each.byte_seconds


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)


def _time(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)
