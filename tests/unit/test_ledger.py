"""The ledger's answers, the same from SQLite and from a real PostgreSQL server."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.digests import Digest, sha256_bytes
from data_contracts.errors import BadInput, Unavailable
from data_contracts.ledger import Expiring, LedgerEntry, ledger_digest
from resources.ledger import SqlLedger, open_ledger
from tests.support.postgres import new_database

DIGEST = sha256_bytes(b"")


@pytest.fixture
def place(store_url: str, tmp_path: Path) -> tuple[str, Path]:
    """What `open_ledger` takes; every test has a ledger of its own."""
    return store_url, tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(place: tuple[str, Path]) -> SqlLedger:
    return open_ledger(*place)


def row(number: int) -> Digest:
    return sha256_bytes(f"row {number}".encode())


def entry(number: int, subject: str = "someone", parents: tuple[int, ...] = (), **changes: object) -> LedgerEntry:
    values = {
        "row": row(number),
        "subject": subject,
        "parents": [row(parent) for parent in parents],
    }
    origin = {
        "source": "s3://bucket/täb\tback\\slash.jsonl",
        "source_digest": DIGEST,
        "contract": DIGEST,
        "licence": "CC0-1.0",
        "consent": "consent",
        "purposes": ["own-model"],
        "retain_until": None,
        "tier": "gold",
    }
    return LedgerEntry.model_validate(values | {"origin": origin | changes})


def test_an_entry_comes_back_as_it_was_recorded(ledger: SqlLedger) -> None:
    kept = [
        entry(1),
        entry(2, "another", (1,), licence="MIT", retain_until="2031-01-01"),
        entry(3, parents=(1, 2), synthetic_depth=2, purposes=["inference", "shared-model"]),
    ]
    ledger.record(kept)
    found = ledger.entries([each.row for each in kept])
    assert set(found) == {each.row for each in kept}
    for each in kept:
        assert found[each.row] == each.model_copy(update={"parents": tuple(sorted(each.parents))})
    assert ledger.entry(row(9)) is None
    assert ledger.missing([row(1), row(9)]) == [row(9)]


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("ab"), st.text(st.characters(exclude_categories=["Cs"])))))
def test_a_data_sets_part_of_the_ledger_has_one_digest_for_each_content(terms: list[tuple[int, str, str]]) -> None:
    lines = sorted(
        {(row(number), subject, entry(number, source=source).origin.text) for number, subject, source in terms}
    )
    assert ledger_digest(lines) == ledger_digest([each for each in lines for _ in range(2)])
    for place in range(len(lines)):
        assert ledger_digest(lines) != ledger_digest([*lines[:place], *lines[place + 1 :]])
        name, _, origin = lines[place]
        assert ledger_digest(lines) != ledger_digest([*lines[:place], (name, "c", origin), *lines[place + 1 :]])


def test_the_first_entry_stands_and_parents_are_added(ledger: SqlLedger) -> None:
    assert ledger.record([entry(3, parents=(1,))]) == 1
    assert ledger.record([entry(3, "somebody else", parents=(2,), licence="MIT"), entry(4), entry(5)]) == 2
    assert ledger.entry(row(3)) == entry(3, parents=()).model_copy(update={"parents": tuple(sorted([row(1), row(2)]))})


def test_what_a_row_was_made_from_and_what_was_made_of_it(ledger: SqlLedger) -> None:
    ledger.record([entry(1), entry(2, parents=(1,)), entry(3, parents=(2,)), entry(4, parents=(2, 1)), entry(5)])
    assert ledger.descendants(row(1))[0] in (row(2), row(4))
    assert set(ledger.descendants(row(1))) == {row(2), row(3), row(4)}
    assert ledger.ancestors(row(3)) == [row(2), row(1)]
    assert ledger.ancestors(row(5)) == ledger.descendants(row(5)) == []


def test_which_rows_a_subject_has(ledger: SqlLedger) -> None:
    ledger.record([entry(1), entry(2, "another"), entry(3, parents=(1,))])
    assert set(ledger.rows_of("someone")) == {row(1), row(3)}
    assert ledger.rows_of("nobody") == []


def test_what_expires_before_a_day(ledger: SqlLedger) -> None:
    march, april = date(2031, 3, 31), date(2031, 4, 30)
    ledger.record(
        [entry(1, retain_until=march), entry(2, retain_until=march), entry(3, source="s", retain_until=april)]
    )
    ledger.record([entry(4, parents=(1,), retain_until=march), entry(5)])
    soon = Expiring(retain_until=march, source=entry(1).origin.source, contract=DIGEST, records=2, derived=1)
    later = Expiring(retain_until=april, source="s", contract=DIGEST, records=1, derived=0)
    assert ledger.expiring(march) == []
    assert ledger.expiring(date(2031, 4, 1)) == [soon]
    assert ledger.expiring(date(2031, 5, 1)) == [soon, later]


def test_data_sets_are_noted_once(ledger: SqlLedger) -> None:
    for root, manifest in ((row(1), row(2)), (row(1), row(3)), (row(1), row(2))):
        ledger.record_set(root, manifest)
    assert sorted(ledger.sets()) == sorted([(row(1), row(2)), (row(1), row(3))])


def test_many_writers_at_once_leave_every_entry_once(place: tuple[str, Path]) -> None:
    def write(worker: int) -> None:
        open_ledger(*place).record(entry(number, f"subject {number}") for number in range(worker, worker + 300))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(0, 400, 100)))
    ledger = open_ledger(*place)
    assert ledger.missing(row(number) for number in range(600)) == []
    assert [ledger.rows_of(f"subject {number}") for number in (0, 299, 599)] == [[row(0)], [row(299)], [row(599)]]


def test_an_error_in_the_middle_leaves_nothing(ledger: SqlLedger) -> None:
    with pytest.raises(ValueError, match="not a digest"):
        ledger.record([entry(1), entry(2).model_copy(update={"row": "sha256:no"})])

    def fail() -> None:
        with ledger.database.session() as session:
            session.insert("sets", [("root", "manifest")])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert ledger.missing([row(1)]) == [row(1)]
    assert ledger.sets() == []


def test_a_server_that_hung_up_is_asked_again_on_a_new_connection(postgres_url: str, tmp_path: Path) -> None:
    url = new_database(postgres_url)
    ledger, other = open_ledger(url, tmp_path), open_ledger(url, tmp_path)
    ledger.record([entry(1)])
    with other.database.session() as session:
        session.query(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where pid <> pg_backend_pid() and datname = current_database()"
        )
    assert ledger.entry(row(1)) == entry(1)


@pytest.mark.parametrize(
    "url",
    ["mysql://me@host/db", "postgresql://host/db", "postgresql://me@host", "postgresql://me:secret@host/db?pool=3"],
)
def test_a_url_that_names_no_database_is_refused_without_its_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(BadInput, match="ASSAY_LEDGER") as refused:
        open_ledger(url, tmp_path)
    assert "secret" not in str(refused.value)


def test_a_server_that_does_not_answer_is_named_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"nowhere:5432/db.*ASSAY_LEDGER") as refused:
        open_ledger(f"postgresql://me:secret@/db?host={tmp_path / 'nowhere'}", tmp_path).sets()
    assert "secret" not in str(refused.value)


def test_the_sqlite_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ledger.sqlite"
    open_ledger("", path).record([entry(1)])
    assert path.stat().st_mode & 0o777 == 0o600
    shutil.rmtree(path.parent)


def test_a_file_that_is_taken_away_is_made_anew(tmp_path: Path) -> None:
    ledger = open_ledger("", tmp_path / "ledger.sqlite")
    ledger.record([entry(1)])
    for path in tmp_path.glob("ledger.sqlite*"):
        path.unlink()
    assert ledger.entry(row(1)) is None
    ledger.record([entry(2)])
    assert open_ledger("", tmp_path / "ledger.sqlite").entry(row(2)) == entry(2)


def test_threads_share_one_ledger(tmp_path: Path) -> None:
    ledger = open_ledger("", tmp_path / "ledger.sqlite")
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda number: ledger.record([entry(number)]), range(40))) == 40
    assert not ledger.missing([row(number) for number in range(40)])
