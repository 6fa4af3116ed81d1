"""What artifacts answered in evaluations, in one SQLite file, readable by its owner only."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from data_contracts.digests import Digest
from data_contracts.errors import Refused
from evals.protocols import Kept
from resources.database import SqliteDatabase
from resources.sqlite import empty_log

_TABLES = """
create table if not exists answers (
  key text primary key, artifact text not null, engine text not null, answer text not null
) without rowid;
create index if not exists answers_artifact on answers (artifact);
create table if not exists forgotten (artifact text primary key) without rowid;
"""
_OVERWRITE = "pragma secure_delete = on"
_AT_ONCE = 500


class SqliteAnswers:
    """Implements `evals.protocols.Answers`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = SqliteDatabase(path, _TABLES)

    def get(self, keys: Collection[Digest]) -> dict[Digest, Kept]:
        found: dict[Digest, Kept] = {}
        with self.database.session() as session:
            for some, marks in _some(keys):
                rows = session.query(f"select key, answer, engine from answers where key in ({marks})", some)
                found |= {key: Kept(json.loads(answer), engine) for key, answer, engine in rows}
        return found

    def put(self, artifact: Digest, answers: Mapping[Digest, Kept]) -> None:
        with self.database.session() as session:
            session.query(_OVERWRITE)
            if session.query("select 1 from forgotten where artifact = ?", (artifact,)):
                raise Refused(f"{artifact} was revoked by an erasure: nothing that it answers is kept any more")
            for key, each in answers.items():
                row = (key, artifact, each.engine, json.dumps(each.answer))
                session.query("insert or replace into answers values (?, ?, ?, ?)", row)

    def held(self, artifacts: Collection[Digest]) -> int:
        with self.database.session() as session:
            return sum(
                session.query(f"select count(*) from answers where artifact in ({marks})", some)[0][0]
                for some, marks in _some(artifacts)
            )

    def forget(self, artifacts: Collection[Digest]) -> None:
        with self.database.session() as session:
            session.query(_OVERWRITE)
            for some, marks in _some(artifacts):
                session.query(f"delete from answers where artifact in ({marks})", some)
            session.insert("forgotten", [(artifact,) for artifact in artifacts])
        empty_log(self.path)


def _some(names: Collection[Digest]) -> list[tuple[list[Digest], str]]:
    """As many names as one statement takes, with their marks."""
    wanted = sorted(set(names))
    parts = [wanted[start : start + _AT_ONCE] for start in range(0, len(wanted), _AT_ONCE)]
    return [(part, ",".join("?" * len(part))) for part in parts]
