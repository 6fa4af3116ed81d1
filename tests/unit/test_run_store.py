"""Records of training runs in SQLite and in PostgreSQL: kept once, found by what a person asks for."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from data_contracts.digests import sha256_bytes
from resources.run_store import SqlRuns, open_runs
from tests.support.runs import STARTED, make_record


@pytest.fixture
def runs(store_url: str, tmp_path: Path) -> SqlRuns:
    return open_runs(store_url, tmp_path / "runs.sqlite")


def test_a_record_is_kept_whole_and_its_end_replaces_its_beginning(runs: SqlRuns) -> None:
    runs.put(make_record("a1", outcome="running"))
    ended = make_record(
        "a1", outcome="failed", reason="step 7: the loss is nan", log_tail="tab\there, \\ and ünïcode\n"
    )
    runs.put(ended)
    assert runs.get("a1") == [ended]
    assert runs.find() == [ended]
    assert runs.get("b") == []


def test_records_are_found_by_each_condition_and_by_all_of_them(runs: SqlRuns) -> None:
    other = sha256_bytes(b"other work")
    made = [
        make_record("a1", outcome="done"),
        make_record("a2", outcome="killed", started=STARTED + timedelta(days=1)),
        make_record("b1", outcome="failed", started=STARTED + timedelta(days=2), product="other", action_key=other),
    ]
    for record in made:
        runs.put(record)
    assert runs.find() == made[::-1]
    assert runs.find(product="other") == made[2:]
    assert runs.find(outcomes=["failed", "killed"]) == [made[2], made[1]]
    assert runs.find(since=datetime(2026, 3, 2, tzinfo=UTC)) == [made[2], made[1]]
    assert runs.find(action_key=other) == made[2:]
    assert runs.find(product="other", outcomes=["done"]) == []
    assert runs.get("a") == [made[1], made[0]]
