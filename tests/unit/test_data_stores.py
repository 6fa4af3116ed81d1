"""Rows lie apart from their names: any change shows, and erasure leaves the chain whole."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.digests import hex_of
from data_contracts.errors import Missing, Refused
from data_contracts.ledger import LedgerEntry
from data_contracts.manifests import DatasetManifest
from pipelines.stages.data.integrity import check_dataset
from pipelines.stages.data.item import Dropped, Item
from pipelines.stages.data.rows import Outcome, Outlet, load, named, step
from resources.keyring import SqliteKeyring
from tests.support.data import ORIGIN, DataParts, billing

DIGEST = "sha256:" + "0" * 64


def entry(item: Item) -> LedgerEntry:
    return LedgerEntry(row=item.name, subject=item.subject, origin=item.origin)


@pytest.fixture
def parts(tmp_path: Path) -> DataParts:
    return DataParts(tmp_path)


@pytest.fixture
def manifest(parts: DataParts) -> DatasetManifest:
    """Five rows of five subjects and one that was dropped."""

    def work(out: Outlet) -> Outcome:
        people = [parts.keyring.subject(f"person {n}") for n in range(6)]
        items = named(parts, [(who, ORIGIN, {"text": f"row {n}"}) for n, who in enumerate(people)])
        parts.ledger.record(map(entry, items))
        for item in items[:5]:
            out.keep(item)
        out.drop(Dropped(items[5], "planted", "it is the sixth"))
        return Outcome()

    return step(parts, billing(), "test", [], {}, [], work)[0]


def shard(parts: DataParts, manifest: DatasetManifest) -> Path:
    return next((parts.home / "rows" / hex_of(manifest.root)).glob("rows-*.parquet"))


def test_what_was_written_is_whole_and_private(parts: DataParts, manifest: DatasetManifest) -> None:
    assert check_dataset(parts, manifest) == []
    assert manifest.counts.balanced()
    assert sorted(item.row["text"] for item in load(parts, manifest)) == [f"row {n}" for n in range(5)]
    files = [path for path in (parts.home / "rows").rglob("*") if path.is_file()]
    assert {oct(path.stat().st_mode & 0o777) for path in [*files, parts.keyring.path]} == {"0o600"}


def test_an_edited_row_is_named(parts: DataParts, manifest: DatasetManifest) -> None:
    table = pq.read_table(shard(parts, manifest)).to_pylist()
    table[2]["row"] = json.dumps({"text": "another"})
    pq.write_table(pa.Table.from_pylist(table), shard(parts, manifest))
    (problem,) = check_dataset(parts, manifest)
    assert problem.kind == "tampered"
    assert table[2]["name"] in problem.text


def test_a_dropped_row_and_an_added_row_are_named(parts: DataParts, manifest: DatasetManifest) -> None:
    table = pq.read_table(shard(parts, manifest)).to_pylist()
    pq.write_table(pa.Table.from_pylist(table[1:]), shard(parts, manifest))
    (problem,) = check_dataset(parts, manifest)
    assert (problem.kind, table[0]["name"] in problem.text) == ("missing", True)
    pq.write_table(pa.Table.from_pylist([*table, table[0] | {"name": DIGEST}]), shard(parts, manifest))
    (problem,) = check_dataset(parts, manifest)
    assert (problem.kind, DIGEST in problem.text) == ("tampered", True)


def test_a_shortened_list_of_names_does_not_give_the_root(parts: DataParts, manifest: DatasetManifest) -> None:
    path = shard(parts, manifest).with_name("names.parquet")
    pq.write_table(pq.read_table(path).slice(1), path)
    assert "root" in " ".join(problem.text for problem in check_dataset(parts, manifest))


def test_a_file_that_is_no_parquet_and_a_lost_set_are_reported(parts: DataParts, manifest: DatasetManifest) -> None:
    shard(parts, manifest).write_bytes(b"garbage")
    assert [problem.kind for problem in check_dataset(parts, manifest)] == ["tampered"]
    assert [p.kind for p in check_dataset(parts, manifest.model_copy(update={"root": DIGEST}))] == ["missing"]
    with pytest.raises(Missing):
        parts.datasets.names(DIGEST)


def test_rows_that_an_earlier_version_wrote_are_named_as_such(parts: DataParts, manifest: DatasetManifest) -> None:
    pq.write_table(pq.read_table(shard(parts, manifest)).drop_columns("origin"), shard(parts, manifest))
    (problem,) = check_dataset(parts, manifest)
    assert (problem.kind, "an earlier version wrote it" in problem.text) == ("tampered", True)


def test_a_lost_quarantine_is_reported(parts: DataParts, manifest: DatasetManifest) -> None:
    (held,) = parts.datasets.read_quarantine(manifest.action_key)
    assert held[2] == "planted: it is the sixth"
    (parts.home / "rows" / "quarantine" / f"{hex_of(manifest.action_key)}.parquet").unlink()
    assert [problem.kind for problem in check_dataset(parts, manifest)] == ["missing"]


def test_a_row_without_a_ledger_entry_is_reported(parts: DataParts, manifest: DatasetManifest) -> None:
    (parts.home / "ledger.sqlite").unlink()
    problems = check_dataset(DataParts(parts.home), manifest)
    assert len(problems) == 5
    assert all("no ledger entry" in problem.text for problem in problems)


def test_an_erased_subject_leaves_its_name_and_stops_the_work(parts: DataParts, manifest: DatasetManifest) -> None:
    name, subject = parts.datasets.names(manifest.root)[0]
    parts.keyring.delete(subject)
    assert [problem.kind for problem in check_dataset(parts, manifest)] == ["erased", "tampered"], "half-erased"
    parts.datasets.erase([subject])
    (problem,) = check_dataset(parts, manifest)
    assert (problem.kind, name in problem.text) == ("erased", True)
    with pytest.raises(Refused, match="erased"):
        load(parts, manifest)
    with pytest.raises(Refused, match="may not come in again"):
        parts.keyring.key(subject)


def test_keys_are_one_a_subject_however_many_ask(tmp_path: Path) -> None:
    path = tmp_path / "keys.sqlite"
    with ThreadPoolExecutor(8) as pool:
        rings = list(pool.map(lambda _: SqliteKeyring(path), range(8)))
        keys = list(pool.map(lambda ring: ring.key("someone"), rings))
    assert len(set(keys)) == 1
    assert len(keys[0]) == 32
    assert len({ring.subject("someone") for ring in rings}) == 1
    assert not SqliteKeyring(path).has("nobody")


def test_a_data_set_is_asked_for_a_few_of_many_names(parts: DataParts) -> None:
    names = sorted("sha256:" + f"{number:064x}" for number in range(0, 60_000, 2))
    root = parts.datasets.write(Item(name, "s", ORIGIN, "{}") for name in names).root
    for number in (0, 2, 16_382, 16_384, 59_998):
        assert parts.datasets.holds(root, ["sha256:" + f"{number:064x}"])
    assert not parts.datasets.holds(root, ["sha256:" + f"{number:064x}" for number in (1, 16_383, 60_000, 70_000)])
    assert parts.datasets.holds(root, ["sha256:" + f"{number:064x}" for number in (1, 70_000, 59_998)])
    assert not parts.datasets.holds(root, [])
    assert not parts.datasets.holds(DIGEST, names[:1])


def test_the_ledger_finds_parents(parts: DataParts) -> None:
    one, two = named(parts, [("s", ORIGIN, {"a": 1}), ("s", ORIGIN, {"a": 2})])
    parts.ledger.record([entry(one), entry(two).model_copy(update={"parents": (one.name,)})])
    found = parts.ledger.entry(two.name)
    assert found is not None
    assert found.parents == (one.name,)
    assert parts.ledger.missing([one.name, DIGEST]) == [DIGEST]


def test_erasing_takes_content_and_leaves_names_and_why_a_row_was_dropped(
    parts: DataParts, manifest: DatasetManifest
) -> None:
    ((dropped, stranger, _, _),) = parts.datasets.read_quarantine(manifest.action_key)
    one = parts.datasets.names(manifest.root)[0][1]
    before = parts.datasets.names(manifest.root)
    left = parts.home / "rows" / ".rows-00000.parquet.1.part"
    left.write_text("half a row")
    for subject in (one, stranger):
        assert parts.datasets.held([subject]).content == 1
        assert parts.ledger.rows_of(subject)
        parts.keyring.delete(subject)
    parts.datasets.erase([one, stranger])
    parts.datasets.erase([one, stranger])
    held = parts.datasets.held([one, stranger])
    assert (held.data_sets, held.quarantines, held.content) == ((manifest.root,), (manifest.action_key,), 0)
    assert parts.datasets.names(manifest.root) == before
    assert list(parts.datasets.read_quarantine(manifest.action_key)) == [(dropped, stranger, "planted: erased", {})]
    assert [problem.kind for problem in check_dataset(parts, manifest)] == ["erased"]
    assert not left.exists()
    assert len(list(parts.datasets.read(manifest.root))) == 4


def test_a_key_that_is_gone_without_an_erasure_is_not_taken_for_one(
    parts: DataParts, manifest: DatasetManifest
) -> None:
    parts.keyring.path.unlink()
    assert {problem.kind for problem in check_dataset(DataParts(parts.home), manifest)} == {"missing"}
