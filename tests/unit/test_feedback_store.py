"""Feedback and exchanges in SQLite and in PostgreSQL: kept once, found, settled, deleted; nothing is lost with the
store."""

import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from data_contracts.traces import Position
from resources.feedback import SqlFeedback, open_feedback
from tests.support.feedback import make_exchange, make_feedback, make_sealed
from tests.support.postgres import postgres_server
from tests.support.traces import PRODUCT, START

Open = Callable[[], SqlFeedback]
LATER = START + timedelta(days=1)


@pytest.fixture
def opened(store_url: str, tmp_path: Path) -> Iterator[Open]:
    """Opens one and the same store again and again, as processes do one after the other."""
    made: list[SqlFeedback] = []

    def open_again() -> SqlFeedback:
        made.append(open_feedback(store_url, tmp_path / "feedback.sqlite", tmp_path / "spool"))
        return made[-1]

    yield open_again
    for each in made:
        each.close(0)


@pytest.fixture
def store(opened: Open) -> SqlFeedback:
    return opened()


def test_each_comes_back_as_it_was_and_counts_once(store: SqlFeedback) -> None:
    strange = make_feedback("f1", correction="ä\t\\n \x00 'quoted'", rating=None)
    exchange = make_exchange("chatcmpl-1", tools=[{"name": "look_up", "description": "d"}], subject="s")
    for each in (strange, make_feedback("f0", 1), strange):
        store.add(each)
    store.add_exchange(exchange)
    store.add_exchange(exchange.model_copy(update={"answer": "another"}))
    assert store.flush()
    assert store.exchange("chatcmpl-1") == exchange
    assert store.exchange("another") is None
    assert store.of_trace("chatcmpl-1") == [strange, make_feedback("f0", 1)]
    assert store.feedback(PRODUCT, START, START + timedelta(seconds=1)) == [strange]
    assert store.feedback("another", START, LATER) == []
    assert store.products() == [PRODUCT]
    assert (store.counts().stored, store.counts().duplicate) == (3, 2)


def test_corrected_answers_are_counted_once_each(store: SqlFeedback) -> None:
    said = (
        make_feedback("f1", 1, trace_id="a", correction='I said "correction":null'),
        make_feedback("f2", 2, trace_id="a", correction="again"),
        make_feedback("f3", 3, trace_id="b", rating="bad"),
        make_feedback("f4", 9, trace_id="c", correction="too late"),
        make_feedback("f5", 4, trace_id="d", correction="of another", product="another"),
    )
    for each in said:
        store.add(each)
    assert store.flush()
    assert store.corrected(PRODUCT, START, START + timedelta(seconds=9)) == 1
    assert store.corrected(PRODUCT, START + timedelta(seconds=3), LATER) == 1
    assert store.corrected(PRODUCT, START + timedelta(seconds=3), START + timedelta(seconds=9)) == 0


def test_exchanges_are_read_on_from_a_position(store: SqlFeedback) -> None:
    for name, second in (("b", 1), ("a", 1), ("c", 2), ("d", 9)):
        store.add_exchange(make_exchange(name, second))
    assert store.flush()
    until = START + timedelta(seconds=5)
    first = store.exchanges(PRODUCT, None, until, 1)
    assert [each.trace_id for each in first] == ["a"]
    rest = store.exchanges(PRODUCT, Position(first[0].time, "a"), until, 9)
    assert [each.trace_id for each in rest] == ["b", "c"]


def test_what_is_sealed_waits_until_it_is_settled(store: SqlFeedback) -> None:
    waiting = [make_sealed("b", 1), make_sealed("a", 1), make_sealed("c", 0)]
    for each in (*waiting, waiting[0]):
        assert store.add_sealed(each)
    assert store.flush()
    assert [each.name for each in store.sealed(None, 2)] == ["c", "a"]
    assert [each.name for each in store.sealed(waiting[1], 9)] == ["b"]
    store.settle(waiting[1], make_exchange("chatcmpl-1"))
    store.settle(waiting[2], make_feedback("f1"))
    store.settle(waiting[2], make_feedback("f1"))
    store.settle(waiting[0], None)
    assert store.sealed(None, 9) == []
    assert store.exchange("chatcmpl-1") == make_exchange("chatcmpl-1")
    assert store.of_trace("chatcmpl-1") == [make_feedback("f1")]


def test_old_ones_are_deleted_and_no_others(store: SqlFeedback) -> None:
    for second in range(4):
        store.add(make_feedback(f"f{second}", second))
        store.add_exchange(make_exchange(f"t{second}", second))
    store.add(make_feedback("other", 0, product="pricing"))
    assert store.flush()
    before = START + timedelta(seconds=3)
    assert store.older(PRODUCT, before) == (3, 3)
    assert store.delete(PRODUCT, before) == (3, 3)
    assert store.delete(PRODUCT, before) == (0, 0)
    assert [each.feedback_id for each in store.feedback(PRODUCT, START, LATER)] == ["f3"]
    assert store.products() == [PRODUCT, "pricing"]


def test_a_person_is_forgotten_with_what_others_said_of_the_same_answers(store: SqlFeedback, tmp_path: Path) -> None:
    store.add_exchange(make_exchange("theirs", subject="ann", answer="a text of Ann's"))
    store.add_exchange(make_exchange("nobodys"))
    store.add_exchange(make_exchange("bobs", subject="bob"))
    store.add(make_feedback("f1", trace_id="nobodys", author="ann", correction="what Ann wrote"))
    store.add(make_feedback("f2", trace_id="theirs", author="reviewer", correction="of Ann's answer"))
    store.add(make_feedback("f3", trace_id="bobs", author="bob"))
    assert store.flush()
    assert store.held(["ann", "nobody"]) == 3
    store.forget(["ann"])
    store.forget(["ann"])
    assert store.held(["ann"]) == 0
    assert store.held(["bob"]) == 2
    assert store.exchange("nobodys") is not None
    for path in tmp_path.glob("feedback.sqlite*"):
        assert b"Ann" not in path.read_bytes()


def test_what_one_process_left_the_next_one_brings(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened()
    monkeypatch.setattr(first.spool, "_take", dead)
    first.add(make_feedback("f1"))
    first.close(0)
    second = opened()
    second.resume()
    assert second.flush()
    assert second.of_trace("chatcmpl-1") == [make_feedback("f1")]


def test_a_store_that_is_killed_and_comes_back_has_all(tmp_path: Path) -> None:
    with postgres_server() as server:
        store = open_feedback(server.url, tmp_path / "unused", tmp_path / "spool")
        store.add(make_feedback("before"))
        assert store.flush()
        server.signal(signal.SIGKILL)
        for number in range(20):
            store.add(make_feedback(f"f{number}", number))
            assert store.add_sealed(make_sealed(f"s{number}", number))
        assert not store.flush(0.5)
        server.start()
        assert store.flush(60)
        assert len(store.of_trace("chatcmpl-1")) == 21
        assert len(store.sealed(None, 99)) == 20
        assert store.counts().duplicate == 0
        store.close()


def test_the_files_are_private(tmp_path: Path) -> None:
    store = open_feedback("", tmp_path / "feedback.sqlite", tmp_path / "spool")
    store.add(make_feedback("f1"))
    assert store.flush()
    store.close()
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "feedback.sqlite").stat().st_mode & 0o777 == 0o600


def dead(segment: str, kept: object) -> int:
    raise OSError("the store is dead")
