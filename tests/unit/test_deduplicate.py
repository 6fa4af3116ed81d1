"""Copies: what counts as one, which row of a cluster stays, and that nothing is lost or half-written."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from data_contracts.errors import BadInput
from pipelines.cli import app
from pipelines.stages.data.deduplicate_file import Rank, deduplicate_file
from pipelines.stages.data.near import copies, shingles, words

LONG = "the parcel that you sent on monday came on friday and its left side was torn open at one corner"


def alike(one: str, other: str) -> float:
    """Jaccard similarity of word trigrams, plainly."""
    a, b = set(shingles(words(one))), set(shingles(words(other)))
    return len(a & b) / len(a | b)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Hello,  World!", "hello world", True),
        ("“Ｆull-width” ﬁre", '"full-width" fire', True),
        ("Straße", "STRASSE", True),
        ("Ça va\u00a0?", "C\u0327a va", True),
        ("2*3 = 6", "2 * 3=6", True),
        ("What is 2*3?", "What is 2/3?", False),
        ("It is 3.5 kg", "It is 35 kg", False),
        ("It was -5 degrees", "It was 5 degrees", False),
        ("well-known", "well known", True),
        ("कि", "का", False),
        ("👍", "👎", False),
        ("...", "?!", False),
        ("...", " ... ", True),
    ],
)
def test_what_is_an_exact_copy(one: str, other: str, same: bool) -> None:
    first, second = copies(((text, text) for text in (one, other)), 1.0)
    assert first is None
    assert (second is not None and second.how == "exact") is same


vocabulary = st.sampled_from(LONG.split())
texts = st.lists(vocabulary, min_size=0, max_size=14).map(" ".join) | st.sampled_from([LONG, LONG.upper(), LONG[:-4]])


@given(st.lists(texts, max_size=30), st.sampled_from([0.5, 0.8, 0.95, 1.0]))
@settings(max_examples=150, deadline=None)
def test_each_copy_is_like_its_survivor_and_no_two_survivors_are_alike(sample: list[str], threshold: float) -> None:
    found = list(copies(((text, text) for text in sample), threshold))
    kept = [number for number, copy in enumerate(found) if copy is None]
    for number, copy in enumerate(found):
        if copy is not None:
            assert copy.survivor in kept
            assert copy.survivor < number
            assert alike(sample[number], sample[copy.survivor]) >= threshold
            assert copy.similarity == pytest.approx(alike(sample[number], sample[copy.survivor]))
    spoken = [number for number in kept if words(sample[number])]
    if threshold < 1:
        assert all(alike(sample[a], sample[b]) < threshold for a in spoken for b in spoken if a < b)


def test_a_chain_of_copies_does_not_pull_in_what_is_unlike() -> None:
    chain = [" ".join(f"w{number}" for number in range(start, start + 40)) for start in range(0, 40, 2)]
    found = list(copies(((text, text) for text in chain), 0.8))
    assert alike(chain[0], chain[1]) >= 0.8
    assert alike(chain[0], chain[-1]) == 0
    assert sum(copy is None for copy in found) >= 6


@given(st.lists(texts, min_size=1, max_size=25), st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_the_same_rows_stay_however_the_input_is_cut(sample: list[str], size: int) -> None:
    """Fed row by row or in batches: the function holds state only of what it has seen."""
    whole = list(copies([(text, text) for text in sample], 0.8))
    batches = (sample[start : start + size] for start in range(0, len(sample), size))
    assert list(copies(((text, text) for batch in batches for text in batch), 0.8)) == whole


def test_the_command_keeps_the_first_and_says_for_which_each_other_went(tmp_path: Path) -> None:
    rows = [
        {"text": LONG, "id": 0},
        {"text": "something else altogether", "id": 1},
        {"text": LONG.upper() + "!", "id": 2},
        {"text": LONG + " today", "id": 3},
        {"text": (LONG + " today").title(), "id": 4},
    ]
    source, out, report = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", tmp_path / "report.json"
    command = [
        "data",
        "deduplicate",
        "--in",
        str(source),
        "--field",
        "text",
        "--out",
        str(out),
        "--report",
        str(report),
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "5 rows in, 2 out, 3 dropped" in done.output
    assert [row["id"] for row in read(out)] == [0, 1]
    found = json.loads(report.read_text())
    assert (found["in"], found["out"]) == (5, 2)
    assert [(drop["row"], drop["reason"], drop["match"]) for drop in found["dropped"]] == [
        (2, "exact-duplicate", "0"),
        (3, "near-duplicate", "0"),
        (4, "exact-duplicate", "0"),
    ]
    assert found["dropped"][1]["similarity"] == pytest.approx(alike(LONG, LONG + " today"), abs=1e-4)
    assert found["clusters"] == {"count": 1, "sizes": {"4": 1}}


def test_tier_then_age_then_place_decide_who_stays(tmp_path: Path) -> None:
    rows = [
        {"text": LONG, "tier": "bronze", "made": "2020-01-01", "id": 0},
        {"text": LONG + " now", "tier": "gold", "made": "2026-02-01T10:00:00+02:00", "id": 1},
        {"text": LONG, "tier": "gold", "made": "2026-02-01T09:00:00Z", "id": 2},
        {"text": LONG, "tier": "gold", "made": "2026-02-01T08:00:00", "id": 3},
    ]
    source, out = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    kept = []
    for rank in (Rank(), Rank(tier="tier"), Rank(date="made"), Rank("tier", "made")):
        found = deduplicate_file(source, "text", out, None, rank=rank)
        kept += [row["id"] for row in read(out)]
        assert {drop["match"] for drop in found["dropped"]} == {str(kept[-1])}
    assert kept == [0, 1, 0, 1]
    write(source, [*rows, {"text": LONG, "tier": "best", "made": "soon"}])
    with pytest.raises(BadInput, match=r"line 5: the field 'tier' is not one of gold, silver, bronze"):
        deduplicate_file(source, "text", out, None, rank=Rank(tier="tier"))
    with pytest.raises(BadInput, match=r"line 5: the field 'made' is no ISO 8601 date"):
        deduplicate_file(source, "text", out, None, rank=Rank(date="made"))


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("in.jsonl", b"", "is empty"),
        ("in.jsonl", b'{"text": "a"}\n{"text": \n', "line 2 is not JSON"),
        ("in.jsonl", b'{"text": "a"}\n{"body": "a"}\n', "line 2: the field 'text' is missing"),
        ("in.jsonl", b'{"text": "caf\xe9"}\n', "line 1 is not UTF-8"),
        ("in.jsonl", b'{"text": "a\\u0000b"}\n', "NUL"),
        ("in.jsonl", b'{"text": "a", "text": "b"}\n', "names a key twice"),
        ("in.csv", b"text\n<<<<<<< HEAD\nx\n", "line 2 is a git merge-conflict marker"),
        ("in.txt", b"a", "not JSONL, CSV or Parquet by its name"),
    ],
)
def test_a_file_of_no_use_is_one_error_and_leaves_nothing(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInput, match=said):
        deduplicate_file(tmp_path / name, "text", tmp_path / "out.jsonl", tmp_path / "report.json")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_report_that_cannot_be_written_leaves_no_output(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"text": "a"}])
    with pytest.raises(BadInput, match="does not exist"):
        deduplicate_file(source, "text", tmp_path / "out.jsonl", tmp_path / "none" / "report.json")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_bad_lines_are_dropped_with_their_reason_when_asked(tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.jsonl"
    source.write_bytes(
        b"<<<<<<< HEAD\n\xef\xbb\xbftext,n\nhello there,1\n=======\n\xef\xbb\xbftext,n\nHello there!,2\n"
    )
    found = deduplicate_file(source, "text", out, None, skip_bad=True)
    assert read(out) == [{"text": "hello there", "n": "1"}]
    assert (found["in"], found["out"]) == (5, 1)
    assert [(drop["row"], drop["reason"].split(";")[0]) for drop in found["dropped"]] == [
        (0, "is a git merge-conflict marker"),
        (3, "is a git merge-conflict marker"),
        (4, "repeats the header"),
        (5, "exact-duplicate"),
    ]
    source.write_bytes(b"text,n\nonly one\n")
    with pytest.raises(BadInput, match="has no line that can be read"):
        deduplicate_file(source, "text", out, None, skip_bad=True)
