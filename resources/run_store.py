"""Records of training runs in SQL, found by product, outcome, work and time."""

from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from data_contracts.digests import Digest
from data_contracts.runs import Outcome, RunRecord
from resources.database import Database, PostgresDatabase, SqliteDatabase, Value

_TABLES = """
create table if not exists training_runs (
  run text primary key, started text not null, product text not null, outcome text not null, action_key text not null,
  body text not null
);
create index if not exists training_runs_started on training_runs (started);
create index if not exists training_runs_work on training_runs (action_key)
"""


class SqlRuns:
    """Implements `pipelines.stages.protocols.Runs`."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def put(self, record: RunRecord) -> None:
        row = (record.run, record.started.isoformat(), record.product, record.outcome, record.action_key)
        with self.database.session() as session:
            session.query("delete from training_runs where run = ?", (record.run,))
            session.insert("training_runs", [(*row, record.model_dump_json())])

    def get(self, run: str) -> list[RunRecord]:
        with self.database.session() as session:
            rows = session.query(
                "select body from training_runs where substr(run, 1, ?) = ? order by started desc", (len(run), run)
            )
        return [RunRecord.model_validate_json(row[0]) for row in rows]

    def find(
        self,
        product: str = "",
        outcomes: Collection[Outcome] = (),
        since: datetime | None = None,
        action_key: Digest | None = None,
    ) -> list[RunRecord]:
        wanted: list[tuple[str, tuple[Value, ...]]] = []
        if product:
            wanted.append(("product = ?", (product,)))
        if outcomes:
            wanted.append((f"outcome in ({','.join('?' * len(outcomes))})", tuple(outcomes)))
        if since:
            wanted.append(("started >= ?", (since.isoformat(),)))
        if action_key:
            wanted.append(("action_key = ?", (action_key,)))
        where = " and ".join(condition for condition, _ in wanted)
        with self.database.session() as session:
            rows = session.query(
                f"select body from training_runs {f'where {where} ' if where else ''}order by started desc",
                [value for _, values in wanted for value in values],
            )
        return [RunRecord.model_validate_json(row[0]) for row in rows]


def open_runs(url: str, file: Path) -> SqlRuns:
    """In PostgreSQL when there is a url, else in a SQLite file."""
    return SqlRuns(PostgresDatabase(url, _TABLES, "ASSAY_LEDGER") if url else SqliteDatabase(file, _TABLES))
