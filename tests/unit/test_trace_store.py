"""Traces in SQLite and in PostgreSQL: kept once, counted the same, deleted when they are no longer needed."""

import socket
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from data_contracts.errors import BadInput, Unavailable
from data_contracts.traces import Position, Residence, SealedWindow, Usage
from resources.database import PostgresDatabase
from resources.traces import SqlTraces, open_traces
from tests.support.patience import eventually
from tests.support.traces import PRODUCT, START, make_shadow, make_trace, release

A, B = release("a"), release("b")
SHAPE = release("shape")
Open = Callable[[], SqlTraces]


@pytest.fixture
def opened(store_url: str, tmp_path: Path) -> Iterator[Open]:
    """Opens one and the same store again and again, as processes do one after the other."""
    made: list[SqlTraces] = []

    def open_again() -> SqlTraces:
        made.append(open_traces(store_url, tmp_path / "traces.sqlite", tmp_path / "spool"))
        return made[-1]

    yield open_again
    for each in made:
        each.close(0)


@pytest.fixture
def traces(opened: Open) -> SqlTraces:
    return opened()


def test_a_trace_comes_back_as_it_was_and_counts_once(traces: SqlTraces) -> None:
    strange = make_trace(
        "ä\t\\n", tool='say "hi"\n', reason="a\tb\\c\x00", failed=(B, A), first_token_ms=0.5, cohort="c"
    )
    nobody = make_trace("base", 1, release=None, adapter=None, json_valid=None, status=502)
    for each in (strange, nobody, strange):
        traces.add(each)
    assert traces.flush()
    assert [traces.get(each.trace_id) for each in (strange, nobody)] == [strange, nobody]
    assert traces.get("another") is None
    assert traces.recent(PRODUCT, 9) == [nobody, strange]
    assert traces.since(PRODUCT, nobody.time) == [nobody]
    assert traces.since("another", START) == []
    counts = traces.counts()
    assert (counts.waiting, counts.stored, counts.duplicate, counts.lost) == (0, 2, 1, 0)


def test_what_is_asked_of_many_is_counted(traces: SqlTraces) -> None:
    for index in range(10):
        traces.add(make_trace(f"a{index}", index, status=200 if index % 2 else 422))
    traces.add(make_trace("fell", 3, release=None, failed=(B, A), tenant="globex"))
    traces.add(make_trace("other", 99, product="pricing", tenant="globex", release=B))
    assert traces.flush()
    assert (traces.answered(PRODUCT, A), traces.answered(PRODUCT, B), traces.answered("pricing", B)) == (10, 0, 1)
    late = traces.saw(PRODUCT, A, START + timedelta(seconds=2))
    assert [(each.tenant, each.answers, each.failed) for each in late] == [("acme", 4, 4), ("globex", 0, 1)]
    assert (late[0].first, late[0].last) == (START + timedelta(seconds=2), START + timedelta(seconds=9))
    assert [each.tenant for each in traces.saw(PRODUCT, B, START)] == ["globex"]
    assert sorted(traces.usage(None, None), key=lambda use: use.tenant + use.product) == [
        Usage(tenant="acme", product=PRODUCT, requests=10, prompt_tokens=70, completion_tokens=30),
        Usage(tenant="globex", product=PRODUCT, requests=1, prompt_tokens=7, completion_tokens=3),
        Usage(tenant="globex", product="pricing", requests=1, prompt_tokens=7, completion_tokens=3),
    ]
    (use,) = traces.usage(START + timedelta(seconds=9), START + timedelta(seconds=10))
    assert (use.tenant, use.requests) == ("acme", 1)
    assert traces.products() == [PRODUCT, "pricing"]


def resident(second: float, tenant: str, product: str, byte_seconds: int) -> Residence:
    time = START + timedelta(seconds=second)
    return Residence(time=time, tenant=tenant, product=product, byte_seconds=byte_seconds)


def test_memory_is_summed_beside_requests_and_once_however_often_it_comes(traces: SqlTraces) -> None:
    """A month of a slot of 10 GiB is more than 32 bits hold."""
    month = 10 * (1 << 30) * 30 * 86_400
    traces.add(make_trace("a", 1))
    for each in (resident(0, "acme", PRODUCT, 5), resident(1, "acme", PRODUCT, month)):
        traces.add_residence(each)
        traces.add_residence(each)
    traces.add_residence(resident(1, "globex", "idle", 7))
    assert traces.flush()
    used = sorted(traces.usage(None, None), key=lambda use: use.tenant)
    assert [(use.tenant, use.product, use.requests, use.byte_seconds) for use in used] == [
        ("acme", PRODUCT, 1, month + 5),
        ("globex", "idle", 0, 7),
    ]
    (early,) = traces.usage(None, START + timedelta(seconds=1))
    assert (early.tenant, early.requests, early.byte_seconds) == ("acme", 0, 5)


def test_whole_answers_have_one_order_also_within_a_moment(traces: SqlTraces) -> None:
    for name in "dbca":
        traces.add(make_trace(name, 0.000001))
    traces.add(make_trace("e", 0.25))
    traces.add(make_trace("half", 0, status=422))
    assert traces.flush()
    until = START + timedelta(seconds=1)
    assert [each.trace_id for each in traces.whole_answers(PRODUCT, A, None, until, 9)] == [*"abcde"]
    after = Position(START + timedelta(microseconds=1), "b")
    assert [each.trace_id for each in traces.whole_answers(PRODUCT, A, after, until, 2)] == ["c", "d"]
    assert traces.whole_answers(PRODUCT, A, None, START, 9) == []
    assert traces.whole_between(PRODUCT, A, after, Position(until, "")) == 3
    assert traces.whole_between(PRODUCT, A, None, after) == 2


def test_a_sealed_window_stays(traces: SqlTraces) -> None:
    windows = [
        SealedWindow(number=n, time=START, last=f"t{n}", answers=2, counts={"tool": {"none": n}}) for n in range(6)
    ]
    traces.seal(A, SHAPE, windows)
    traces.seal(A, SHAPE, [each.model_copy(update={"last": "another"}) for each in windows])
    assert traces.sealed(A, SHAPE, 2) == [windows[0], *windows[4:]]
    assert traces.sealed(A, SHAPE, 9) == windows
    assert traces.sealed(B, SHAPE, 9) == []


def test_shadows_are_kept_apart(traces: SqlTraces) -> None:
    shadow = make_shadow("x", 5, equal=None, ms=None)
    traces.add_shadow(shadow)
    assert traces.flush()
    assert traces.shadows(PRODUCT, START) == [shadow]
    assert traces.shadows(PRODUCT, START + timedelta(seconds=6)) == []
    assert (traces.get("x"), traces.usage(None, None)) == (None, [])


def test_old_ones_are_deleted_and_no_others(traces: SqlTraces) -> None:
    for second in range(4):
        traces.add(make_trace(f"t{second}", second))
        traces.add_shadow(make_shadow(f"t{second}", second))
        traces.add_residence(resident(second, "acme", PRODUCT, 10**second))
    traces.add(make_trace("other", 0, product="pricing"))
    traces.add_residence(resident(0, "acme", "pricing", 5))
    assert traces.flush()
    before = START + timedelta(seconds=3), START + timedelta(seconds=1)
    assert traces.older(PRODUCT, *before) == (3, 1)
    traces.delete(PRODUCT, *before)
    assert traces.older(PRODUCT, *before) == (0, 0)
    assert [each.trace_id for each in traces.since(PRODUCT, START)] == ["t3"]
    assert len(traces.shadows(PRODUCT, START)) == 3
    assert traces.get("other") is not None
    assert {use.product: use.byte_seconds for use in traces.usage(None, None)} == {PRODUCT: 1000, "pricing": 5}


def test_what_was_spent_is_known_to_the_next_process_also_without_the_store(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    first = opened()
    assert first.spent_before("acme", now.date()) == (0, 0)
    first.add(make_trace("a", time=now))
    first.add(make_trace("b", time=now, tenant="globex"))
    first.add(make_trace("b", time=now, tenant="globex"))
    assert first.flush()
    first.close()
    second = opened()
    monkeypatch.setattr(second.spool, "_take", dead)
    second.add(make_trace("c", time=now))
    second.close(0)
    third = opened()
    monkeypatch.setattr(third.spool, "_take", dead)
    monkeypatch.setattr(third, "database", None)
    assert third.spent_before("acme", now.date()) == (20, 20)
    assert third.spent_before("nobody", now.date()) == (0, 0)
    assert third.spent_before("acme", now.date() + timedelta(days=32)) == (0, 0)
    third.close(0)
    fourth = opened()
    fourth.resume()
    assert eventually(lambda: fourth.get("c") is not None)


def test_without_the_tally_the_store_tells_what_was_spent(opened: Open, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    first = opened()
    first.add(make_trace("a", time=now))
    first.add(make_trace("old", 0, tenant="globex"))
    assert first.flush()
    first.close()
    (tmp_path / "spool" / "tokens.json").write_text("{")
    assert opened().spent_before("acme", now.date()) == (10, 10)


def dead(segment: str, kept: object) -> int:
    raise Unavailable("the store is dead")


def test_a_file_of_an_earlier_version_is_taken_over(tmp_path: Path) -> None:
    file = tmp_path / "traces.sqlite"
    kept = [make_trace(f"t{index}", index, failed=(B,) if index else ()) for index in range(3)]
    shadow = make_shadow("t1")
    with closing(sqlite3.connect(file)) as connection, connection:
        for table in ("traces", "shadows"):
            connection.execute(
                f"create table {table} (trace_id text primary key, time text not null, product text not null, "
                "body text not null)"
            )
        connection.execute("create index traces_by_tenant on traces (body ->> 'tenant', time)")
        connection.execute("create index traces_by_product on traces (product, time desc)")
        for table, each in [*(("traces", trace) for trace in kept), ("shadows", shadow)]:
            row = each.trace_id, each.time.isoformat(), each.product, each.model_dump_json()
            connection.execute(f"insert into {table} values (?, ?, ?, ?)", row)
    for _ in range(2):
        traces = open_traces("", file, tmp_path / "spool")
        assert traces.since(PRODUCT, START) == kept
        assert traces.shadows(PRODUCT, START) == [shadow]
        assert [each.failed for each in traces.saw(PRODUCT, B, START)] == [2]


def test_the_files_are_private(tmp_path: Path) -> None:
    traces = open_traces("", tmp_path / "traces.sqlite", tmp_path / "spool")
    traces.add(make_trace("a"))
    assert traces.flush()
    traces.close()
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    for path in (tmp_path / "traces.sqlite", tmp_path / "spool" / "tokens.json"):
        assert path.stat().st_mode & 0o777 == 0o600


# pg8000 leaves the socket of a connection that never came about to the collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
def test_a_server_that_says_nothing_is_not_waited_for_without_end() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{folder}/.s.PGSQL.5432")
        silent.listen()
        database = PostgresDatabase(f"postgresql://me@/db?host={folder}", "", "ASSAY_TRACES", seconds=0.2)
        with pytest.raises(Unavailable, match=f"{folder}:5432/db cannot be used"), database.session():
            pass


def test_the_setting_is_named_where_its_database_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="ASSAY_TRACES"):
        open_traces("mysql://me@host/db", tmp_path / "unused", tmp_path / "spool")
    traces = open_traces(f"postgresql://me:secret@/db?host={tmp_path}", tmp_path / "unused", tmp_path / "spool")
    with pytest.raises(Unavailable, match="ASSAY_TRACES") as error:
        traces.get("a")
    assert "secret" not in str(error.value)
