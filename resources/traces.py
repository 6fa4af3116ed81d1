"""Traces in SQLite: metadata of every answer. Writing never delays an answer: a thread writes in batches."""

import atexit
import contextlib
import logging
import queue
import sqlite3
import threading
from datetime import datetime
from pathlib import Path

from data_contracts.digests import Digest
from data_contracts.rollbacks import Saw
from data_contracts.traces import ShadowTrace, Trace, Usage
from resources.sqlite import connect, create

log = logging.getLogger(__name__)

SCHEMA = """
create table if not exists traces (
    trace_id text primary key, time text not null, product text not null, body text not null
);
create index if not exists traces_by_product on traces (product, time desc);
create index if not exists traces_by_tenant on traces (body ->> 'tenant', time);
create table if not exists shadows (
    trace_id text primary key, time text not null, product text not null, body text not null
);
create index if not exists shadows_by_product on shadows (product, time);
"""
KEPT: dict[str, type[Trace] | type[ShadowTrace]] = {"traces": Trace, "shadows": ShadowTrace}


class SqliteTraceStore:
    """Implements `pipelines.stages.protocols.TraceStore`. `add` returns at once; `flush` waits until all is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        create(path, SCHEMA)
        self._waiting: queue.SimpleQueue[Trace | ShadowTrace | threading.Event] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._starting = threading.Lock()

    def add(self, trace: Trace) -> None:
        self._put(trace)

    def add_shadow(self, shadow: ShadowTrace) -> None:
        self._put(shadow)

    def flush(self, seconds: float = 30) -> bool:
        """Whether everything that was added is on disk."""
        if self._writer is None:
            return True
        done = threading.Event()
        self._waiting.put(done)
        return done.wait(seconds)

    def get(self, trace_id: str) -> Trace | None:
        with connect(self.path) as connection:
            row = connection.execute("select body from traces where trace_id = ?", (trace_id,)).fetchone()
        return None if row is None else Trace.model_validate_json(row[0])

    def recent(self, product: str, limit: int) -> list[Trace]:
        """Newest first."""
        with connect(self.path) as connection:
            rows = connection.execute(
                "select body from traces where product = ? order by time desc limit ?", (product, limit)
            ).fetchall()
        return [Trace.model_validate_json(row[0]) for row in rows]

    def since(self, product: str, time: datetime) -> list[Trace]:
        """Of answers that ended then or later, the oldest first."""
        with connect(self.path) as connection:
            rows = connection.execute(
                "select body from traces where product = ? and time >= ? order by time", (product, time.isoformat())
            ).fetchall()
        return [Trace.model_validate_json(row[0]) for row in rows]

    def saw(self, product: str, release: Digest, since: datetime) -> list[Saw]:
        """By tenant: answers of this release and requests that it failed, of those that ended then or later."""
        with connect(self.path) as connection:
            rows = connection.execute(
                "with seen as (select time, body ->> 'tenant' as tenant, body ->> 'release' is ?1 as answered, "
                "body ->> 'status' = 200 as good, ?1 in (select value from json_each(body, '$.failed')) as failed "
                "from traces where product = ?2 and time >= ?3) "
                "select tenant, sum(answered and good), sum(failed or not good), min(time), max(time) "
                "from seen where answered or failed group by tenant order by tenant",
                (release, product, since.isoformat()),
            ).fetchall()
        return [Saw(tenant=t, answers=good, failed=bad, first=first, last=last) for t, good, bad, first, last in rows]

    def shadows(self, product: str, since: datetime) -> list[ShadowTrace]:
        """Those that ended then or later, the oldest first."""
        with connect(self.path) as connection:
            rows = connection.execute(
                "select body from shadows where product = ? and time >= ? order by time", (product, since.isoformat())
            ).fetchall()
        return [ShadowTrace.model_validate_json(row[0]) for row in rows]

    def tokens(self, tenant: str, since: datetime) -> int:
        """Of prompts and answers together, of those that ended then or later."""
        with connect(self.path) as connection:
            (tokens,) = connection.execute(
                "select coalesce(sum((body ->> 'prompt_tokens') + (body ->> 'completion_tokens')), 0) from traces "
                "where body ->> 'tenant' = ? and time >= ?",
                (tenant, since.isoformat()),
            ).fetchone()
        return int(tokens)

    def usage(self, since: datetime | None, until: datetime | None) -> list[Usage]:
        with connect(self.path) as connection:
            rows = connection.execute(
                "select body ->> 'tenant' as tenant, product, count(*), sum(body ->> 'prompt_tokens'), "
                "sum(body ->> 'completion_tokens') from traces "
                "where (?1 is null or time >= ?1) and (?2 is null or time < ?2) group by tenant, product",
                (since and since.isoformat(), until and until.isoformat()),
            ).fetchall()
        return [Usage(tenant=t, product=p, requests=n, prompt_tokens=i, completion_tokens=o) for t, p, n, i, o in rows]

    def _put(self, trace: Trace | ShadowTrace) -> None:
        with self._starting:
            if self._writer is None:
                self._writer = threading.Thread(target=self._write, name="traces", daemon=True)
                self._writer.start()
                atexit.register(self.flush)
        self._waiting.put(trace)

    def _write(self) -> None:
        while True:
            batch = [self._waiting.get()]
            with contextlib.suppress(queue.Empty):
                while len(batch) < 500:
                    batch.append(self._waiting.get_nowait())
            try:
                with connect(self.path) as connection:
                    for table, kind in KEPT.items():
                        connection.executemany(
                            f"insert or replace into {table} values (?, ?, ?, ?)",
                            [
                                (t.trace_id, t.time.isoformat(), t.product, t.model_dump_json())
                                for t in batch
                                if isinstance(t, kind)
                            ],
                        )
            except sqlite3.Error:
                lost = sum(not isinstance(item, threading.Event) for item in batch)
                log.exception("%d traces were lost: %s cannot be written", lost, self.path)
            for item in batch:
                if isinstance(item, threading.Event):
                    item.set()
