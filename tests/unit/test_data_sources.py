"""What comes in: any JSONL, CSV or Parquet by writing a product file; what cannot be read is told, not dropped."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.errors import BadInput, Refused
from pipelines.recipes.product import Product
from pipelines.stages.data import steps
from pipelines.stages.data.export import write_training_file
from pipelines.stages.data.integrity import check_dataset
from pipelines.stages.data.sources import fetch, read
from tests.support.data import DataParts, product_of, run_line, simple_rows, write_contract

INTENT = {"user": "{text}", "assistant": {"intent": "{intent}"}}


@pytest.fixture
def parts(tmp_path: Path) -> DataParts:
    return DataParts(tmp_path / "home")


def intents(tmp_path: Path, name: str, data: bytes) -> Product:
    (tmp_path / name).write_bytes(data)
    contract = write_contract(tmp_path / "intents.yaml", {"text": "string", "intent": "string"})
    return product_of(tmp_path, {"url": str(tmp_path / name), "contract": contract, "mapping": INTENT})


def jsonl(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_another_product_needs_only_yaml(tmp_path: Path, parts: DataParts, suffix: str) -> None:
    rows, path = simple_rows(40), tmp_path / f"rows.{suffix}"
    if suffix == "csv":
        with path.open("w", newline="", encoding="utf-8-sig") as handle:
            writer = csv.DictWriter(handle, ["text", "intent"])
            writer.writeheader()
            writer.writerows(rows)
    elif suffix == "jsonl":
        path.write_bytes(b"\xef\xbb\xbf" + jsonl(rows) + b"\n\n")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    done = run_line(parts, intents(tmp_path, path.name, path.read_bytes()))
    splits = done["splits"][0]
    assert splits.counts.rows_out == 40
    assert splits.synthetic_share == 0
    lines = []
    for split in ("train", "validation"):
        assert write_training_file(parts, splits, split, tmp_path / split)
        lines += (tmp_path / split).read_text().splitlines()
    said = {json.loads(line)["messages"][0]["content"]: json.loads(line)["messages"][1]["content"] for line in lines}
    assert said == {row["text"]: json.dumps({"intent": row["intent"]}) for row in rows}


def test_transcripts_become_preference_pairs(tmp_path: Path, parts: DataParts) -> None:
    shared = "\n\nHuman: What is {0}{0}?\n\nAssistant: A {0}.\n\nHuman: And more about {0}?\n\nAssistant:"
    rows = [
        {"chosen": shared.format(word) + " Yes.", "rejected": shared.format(word) + " No."}
        for word in (row["text"][:-1] for row in simple_rows(12))
    ]
    rows.append({"chosen": shared.format("x") + " Yes.", "rejected": shared.format("y") + " No."})
    rows.append({"chosen": "no transcript", "rejected": shared.format("y") + " No."})
    (tmp_path / "pairs.jsonl").write_bytes(jsonl(rows))
    contract = write_contract(tmp_path / "pairs.yaml", {"chosen": "string", "rejected": "string"})
    mapping = {"chosen_transcript": "chosen", "rejected_transcript": "rejected"}
    source = {"url": str(tmp_path / "pairs.jsonl"), "contract": contract, "kind": "preference", "mapping": mapping}
    product = product_of(tmp_path, source)
    raw, _ = steps.raw(parts, product)
    contracted, _ = steps.contracted(parts, product, raw)
    assert contracted.counts.dropped == {"contract": 2}
    reasons = " ".join(reason for _, _, reason, _ in parts.datasets.read_quarantine(contracted.action_key))
    assert "differ before the last answer" in reasons
    assert "no turn starts with" in reasons
    ledgered, _ = steps.ledgered(parts, product, contracted)
    pair = next(item.row for item in parts.datasets.read(ledgered.root))["pair"]
    assert [message["role"] for message in pair["prompt"]] == ["user", "assistant", "user"]
    assert (pair["chosen"], pair["rejected"]) == ("Yes.", "No.")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"{not json", "not JSON"),
        (b'["a list"]', "not an object"),
        (b'{"text": "\xff", "intent": "a"}', "not UTF-8"),
        (b'{"text": "a\\u0000b", "intent": "a"}', "NUL"),
        (b'{"text": "\\ud800", "intent": "a"}', "not UTF-8"),
        (b'{"text": NaN, "intent": "a"}', "not JSON"),
        (b'{"text": 123456789012345678901, "intent": "a"}', "JSON cannot carry"),
        (b'{"a":' * 3000 + b"1" + b"}" * 3000, "JSON"),
    ],
)
def test_an_unreadable_line_goes_to_quarantine_with_file_line_and_reason(
    tmp_path: Path, parts: DataParts, line: bytes, fault: str
) -> None:
    raw, _ = steps.raw(parts, intents(tmp_path, "rows.jsonl", jsonl(simple_rows(3)) + line + b"\n"))
    assert (raw.counts.rows_out, raw.counts.dropped) == (3, {"unreadable": 1})
    ((_, _, reason, row),) = parts.datasets.read_quarantine(raw.action_key)
    assert fault in reason
    assert "rows.jsonl, line 4" in reason
    assert row["line"] == 4


def test_ragged_and_foreign_csv_lines_go_to_quarantine(tmp_path: Path, parts: DataParts) -> None:
    data = b"text,intent\nhello there,a\n<<<<<<< HEAD\none,two,three\ncaf\xe9,b\n"
    raw, _ = steps.raw(parts, intents(tmp_path, "rows.csv", data))
    assert (raw.counts.rows_out, raw.counts.dropped) == (1, {"unreadable": 3})
    reasons = sorted(reason.split(", ")[1] for _, _, reason, _ in parts.datasets.read_quarantine(raw.action_key))
    assert [reason.split("; ")[0] for reason in reasons] == [
        "line 3 is a git merge-conflict marker",
        "line 4 has more cells than the header",
        "line 5 holds text that is not UTF-8",
    ]


def test_a_csv_left_in_a_merge_conflict_gives_its_rows_and_every_bad_line(tmp_path: Path, parts: DataParts) -> None:
    half = b'\xef\xbb\xbftext,intent\r\n"two\n======= lines",a\r\nshort\r\n"a,b",c\r\n'
    data = b"<<<<<<< HEAD\r\n" + half + b"||||||| 0a1b2c3\r\n=======\r\n" + half + b">>>>>>> 4f10 (x, y)\r\n"
    raw, _ = steps.raw(parts, intents(tmp_path, "rows.csv", data))
    assert (raw.counts.rows_out, raw.counts.dropped) == (4, {"unreadable": 7})
    texts = sorted(item.row["values"]["text"] for item in parts.datasets.read(raw.root))
    assert texts == ["a,b", "a,b", "two\n======= lines", "two\n======= lines"]
    reasons = sorted(
        reason.split("rows.csv, ")[1].split(";")[0]
        for _, _, reason, _ in parts.datasets.read_quarantine(raw.action_key)
    )
    assert reasons == [
        "line 1 is a git merge-conflict marker",
        "line 12 has fewer cells than the header",
        "line 14 is a git merge-conflict marker",
        "line 5 has fewer cells than the header",
        "line 7 is a git merge-conflict marker",
        "line 8 is a git merge-conflict marker",
        "line 9 repeats the header",
    ]


def test_a_conflict_marker_and_a_later_byte_order_mark_in_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'<<<<<<< HEAD\n\xef\xbb\xbf{"a": 1}\n=======\n\xef\xbb\xbf{"a": 2}\n>>>>>>> 0a1b\n')
    found = list(read(path, "rows"))
    assert [record.values for record in found if not record.fault] == [{"a": 1}, {"a": 2}]
    assert {record.fault.split(";")[0] for record in found} == {"", "is a git merge-conflict marker"}


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("rows.jsonl", b"", "is empty"),
        ("rows.jsonl", b"\n \n", "no readable row"),
        ("rows.jsonl", b"\x00\x01\x02", "no readable row"),
        ("rows.csv", b"a,a\n1,2\n", "each column once"),
        ("rows.parquet", b"PAR1 not really", "not a whole Parquet file"),
        ("rows.txt", b"hello", "by its name"),
    ],
)
def test_a_source_of_no_use_is_refused_and_nothing_is_written(
    tmp_path: Path, parts: DataParts, name: str, data: bytes, told: str
) -> None:
    product = intents(tmp_path, name, data)
    with pytest.raises(BadInput, match=told) as refused:
        steps.raw(parts, product)
    assert name in str(refused.value)
    assert not (parts.home / "rows").exists()


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    for url in (str(tmp_path / "none.jsonl"), "generated://nothing", "nowhere://x/y.csv"):
        with pytest.raises(BadInput, match=r"none\.jsonl|generated://nothing|nowhere"):
            fetch(url, tmp_path)


def test_an_environment_variable_in_a_url_is_filled_in_and_stays_out_of_the_manifest(
    tmp_path: Path, parts: DataParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INTENTS_FOLDER", raising=False)
    product = intents(tmp_path, "rows.jsonl", jsonl(simple_rows(3)))
    url = "${INTENTS_FOLDER}/rows.jsonl"
    product = product.model_copy(update={"sources": (product.sources[0].model_copy(update={"url": url}),)})
    with pytest.raises(BadInput, match="INTENTS_FOLDER is not set"):
        steps.raw(parts, product)
    monkeypatch.setenv("INTENTS_FOLDER", str(tmp_path))
    manifest, _ = steps.raw(parts, product)
    assert (manifest.counts.rows_in, [source.url for source in manifest.sources]) == (3, [url])


def test_a_source_over_fsspec_is_read(tmp_path: Path) -> None:
    import fsspec

    with fsspec.open("memory://bucket/rows.jsonl", "wb") as handle:
        handle.write(jsonl(simple_rows(2)))
    url = "memory://bucket/rows.jsonl"
    assert [record.values for record in read(fetch(url, tmp_path), url)] == simple_rows(2)


def test_rows_that_all_fail_a_gate_stop_the_line_with_the_reason(tmp_path: Path, parts: DataParts) -> None:
    product = intents(tmp_path, "rows.jsonl", jsonl(simple_rows(3)))
    write_contract(tmp_path / "intents.yaml", {"text": "string", "intent": "string"}, licence="CC-BY-NC-4.0")
    with pytest.raises(Refused, match=r"3 licence.*CC-BY-NC-4\.0 is not allowed"):
        run_line(parts, product)


def test_synthetic_rows_need_the_waiver(tmp_path: Path, parts: DataParts) -> None:
    product = intents(tmp_path, "rows.jsonl", jsonl(simple_rows(8)))
    write_contract(tmp_path / "intents.yaml", {"text": "string", "intent": "string"}, syntheticDepth=1)
    with pytest.raises(Refused, match="synthetic depth 1"):
        run_line(parts, product)


def test_a_mapping_that_names_no_column_quarantines_the_row(tmp_path: Path, parts: DataParts) -> None:
    product = intents(tmp_path, "rows.jsonl", jsonl(simple_rows(3)))
    source = product.sources[0].payload() | {"mapping": {"user": "{question}", "assistant": "x"}}
    product = Product.model_validate(product.payload() | {"sources": [source]})
    with pytest.raises(Refused, match="question: the product's mapping needs this column"):
        run_line(parts, product)


def test_another_installation_learns_from_the_same_rows_under_other_names(tmp_path: Path, parts: DataParts) -> None:
    product, other = intents(tmp_path, "rows.jsonl", jsonl(simple_rows(40))), DataParts(tmp_path / "other")
    mine, theirs = run_line(parts, product)["splits"][0], run_line(other, product)["splits"][0]
    assert mine.root != theirs.root
    for split in ("train", "validation"):
        write_training_file(parts, mine, split, tmp_path / "mine")
        write_training_file(other, theirs, split, tmp_path / "theirs")
        assert (tmp_path / "mine").read_bytes() == (tmp_path / "theirs").read_bytes()
        assert oct((tmp_path / "mine").stat().st_mode & 0o777) == "0o600"


def test_a_lost_row_is_made_again(tmp_path: Path, parts: DataParts) -> None:
    product = intents(tmp_path, "rows.jsonl", jsonl(simple_rows(5)))
    raw, _ = steps.raw(parts, product)
    assert steps.raw(parts, product) == (raw, True)
    next((parts.home / "rows").rglob("rows-*.parquet")).unlink()
    assert steps.raw(parts, product) == (raw, False)
    assert check_dataset(parts, raw) == []


def test_a_changed_source_is_read_anew(tmp_path: Path, parts: DataParts) -> None:
    raw, _ = steps.raw(parts, intents(tmp_path, "rows.jsonl", jsonl(simple_rows(5))))
    more, hit = steps.raw(parts, intents(tmp_path, "rows.jsonl", jsonl(simple_rows(6))))
    assert not hit
    assert {name for name, _ in parts.datasets.names(raw.root)} < {name for name, _ in parts.datasets.names(more.root)}
