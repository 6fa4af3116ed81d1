"""Copies in other words: which go out, which only look like it, for whom, and that the line takes them by setting."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.stages.data import meaning, steps
from pipelines.stages.data.integrity import check_dataset
from pipelines.stages.data.meaning import Meaning, Wording
from pipelines.stages.data.near import copies, words
from pipelines.stages.data.rows import load
from pipelines.stages.data.texts import reworded
from pipelines.stages.data.wording import _stem, says_the_same
from tests.support.data import DataParts, product_of, write_contract

SAME = [
    ("How do I reset my password?", "What is the way to reset my password?"),
    ("I want to cancel order 5.", "Please cancel order 5 for me."),
    ("The app crashes when I log in.", "Whenever I log in, the app crashes."),
    ("Sort the list and remove what is there twice.", "Remove what is there twice, and sort the list."),
    (
        "Seattle is home to 20 sheep, and Charleston has 1,000 more. What is the overall count of both cities?",
        "How many animals in total do Charleston and Seattle hold, if Seattle holds 20 and Charleston 1000 more?",
    ),
]
OTHER = [
    ("Cancel order 5.", "Cancel order 7."),
    ("It was -5 degrees.", "It was 5 degrees."),
    ("Wait two minutes, then restart it.", "Wait five minutes, then restart it."),
    ("My card is working.", "My card is not working."),
    ("I can log in to my account.", "I can't log in to my account."),
    ("He always pays on time.", "He never pays on time."),
    ("Turn the lights on.", "Turn the lights off."),
    ("Send it before the meeting.", "Send it after the meeting."),
    ("Ask Maria Keller about it.", "Ask Peter Keller about it."),
    ("Transfer the money from Anna to Bert.", "Transfer the money from Bert to Anna."),
    ("Alice sued Bob over the contract.", "Bob sued Alice over the contract."),
    ("when is the flight from boston to denver", "when is the flight from denver to boston"),
    ("I ordered a red jacket.", "I ordered a blue jacket."),
    ("Lock my card.", "Unlock my card."),
    ("When will I get my card?", "Where will I get my card?"),
    ("Cancel my order.", "Cancel my gold order."),
    ("the dog bit the man", "the man bit the dog"),
    ("Convert 5 miles to kilometers.", "Convert 5 kilometers to miles."),
    ("If it rains we stay in, otherwise we go out.", "If it rains we go out, otherwise we stay in."),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_another_wording_says_the_same(one: str, other: str) -> None:
    assert says_the_same(one, other)
    assert says_the_same(other, one)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_a_number_a_name_a_no_or_an_exchanged_word_says_something_else(one: str, other: str) -> None:
    assert not says_the_same(one, other)
    assert not says_the_same(other, one)


class ByStem:
    """Texts of like words are near, whatever their order."""

    identity = "by-stem"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), 64), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in words(text):
                vectors[row, crc32(_stem(word).encode()) % 64] += 1
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def found(texts: Sequence[str], threshold: float = 0.8) -> list[Any]:
    return list(copies(((each, each) for each in texts), 0.8, Meaning(ByStem(), threshold)))


def test_each_goes_for_the_first_that_stays_and_exact_copies_of_it_follow() -> None:
    texts = ["", "Cancel order 5 now.", "Now cancel order 5!", "now cancel order 5", "Cancel order 7 now.", "..."]
    result = found(texts)
    assert [None if copy is None else (copy.how, copy.survivor) for copy in result] == [
        None,
        None,
        ("semantic", 1),
        ("exact", 1),
        None,
        None,
    ]
    assert result[2].similarity == pytest.approx(1.0)


VOCABULARY = ("parcel", "torn", "corner", "damaged", "order", "card", "monday", "locks")
bag = st.lists(st.sampled_from(VOCABULARY), max_size=5).map(" ".join)


@given(st.lists(bag, max_size=40), st.integers(1, 9), st.integers(1, 5))
def test_a_copy_means_what_its_survivor_means_however_the_rows_are_cut(texts: list[str], batch: int, tile: int) -> None:
    whole = found(texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meaning, "_BATCH", batch)
        patch.setattr(meaning, "_TILE", tile)
        assert found(texts) == whole
    kept = {number for number, copy in enumerate(whole) if copy is None}
    for number, copy in enumerate(whole):
        if copy is not None:
            assert copy.survivor in kept
            assert copy.survivor < number
            if copy.how == "semantic":
                assert says_the_same(texts[number], texts[copy.survivor])
    said = [texts[number] for number in sorted(kept) if words(texts[number])]
    near = np.triu(ByStem().embed(said) @ ByStem().embed(said).T, 1) >= 0.8001 if said else np.zeros((0, 0))
    assert not any(says_the_same(said[one], said[other]) for one, other in zip(*np.nonzero(near), strict=True))


def test_a_text_that_the_model_does_not_read_to_its_end_has_no_copy_in_meaning() -> None:
    several = [f"{one}{two}{three}" for one in "bdfg" for two in "aeiou" for three in "klmnprst"]
    assert len(several) == meaning.LONGEST
    for words_of, last in ((several, "semantic"), ([*several, "longer"], None)):
        _, copy = found([" ".join(words_of), " ".join(reversed(words_of))])
        assert (copy and copy.how) == last


def test_what_is_fixed_must_be_the_same() -> None:
    asked = ("Cancel order 5 now.", "Now cancel order 5!")
    for answers, last in ((("yes", "yes"), "semantic"), (("yes", "no"), None)):
        texts = [(f"{text} {answer}", text) for text, answer in zip(asked, answers, strict=True)]
        wordings = [Wording(answer, (text,)) for text, answer in zip(asked, answers, strict=True)]
        alike = Meaning(ByStem(), 0.8, wordings)
        _, copy = copies(texts, 0.8, alike)
        assert (copy and copy.how) == last


def test_a_call_and_a_label_are_fixed_and_prose_may_be_worded_otherwise() -> None:
    def row(answer: str) -> dict[str, Any]:
        turns = [{"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": answer}]
        return {"kind": "sft", "example": {"tools": [], "messages": turns}}

    assert reworded(row("intent 3"))[1] == ("Where is it?",)
    assert "intent 3" in reworded(row("intent 3"))[0]
    call = '{"tool": "find", "arguments": {"what": "a parcel that was sent on monday"}}'
    assert reworded(row(call))[1] == ("Where is it?",)
    prose = "It left our house on monday and is on its way."
    assert reworded(row(prose)) == ("sft\nuser\nassistant", ("Where is it?", prose))


ROWS = [
    {"text": "My parcel came torn at one corner.", "intent": "damaged", "made": "2026-02-01"},
    {"text": "At one corner my parcel came torn.", "intent": "damaged", "made": "2024-05-05"},
    {"text": "My parcel, it came torn at one corner.", "intent": "lost", "made": "2020-01-01"},
    {"text": "When does the shop open?", "intent": "hours", "made": "2020-01-01"},
]


@pytest.mark.parametrize(("setting", "kept"), [({}, [0, 1, 2, 3]), ({"meaning": 0.9}, [1, 2, 3])])
def test_the_line_takes_them_out_by_setting_and_names_the_survivor(
    tmp_path: Path, setting: dict[str, float], kept: list[int]
) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    contract = write_contract(
        tmp_path / "c.yaml", {"text": "string", "intent": "string", "made": "date"}, dateField="made"
    )
    source = {"url": str(tmp_path / "rows.jsonl"), "contract": contract}
    mapped = source | {"mapping": {"user": "{text}", "assistant": "{intent}"}}
    product, parts = product_of(tmp_path, mapped, deduplicate=setting), DataParts(tmp_path / "home")
    parts.embedder = ByStem()
    manifest, _ = steps.raw(parts, product)
    for step in (steps.contracted, steps.ledgered, steps.scrubbed, steps.deduplicated):
        manifest, _ = step(parts, product, manifest)
    items = list(load(parts, manifest))
    assert {item.row["example"]["messages"][0]["content"] for item in items} == {
        ROWS[number]["text"] for number in kept
    }
    assert check_dataset(parts, manifest) == []
    gone = [(reason, row) for _, _, reason, row in parts.datasets.read_quarantine(manifest.action_key)]
    assert len(gone) == 4 - len(kept)
    for reason, row in gone:
        survivor = next(item for item in items if item.row["date"].startswith("2024"))
        assert reason == f"semantic-duplicate: says in other words the same as {survivor.name} (similarity 1.000)"
        assert row["date"].startswith("2026")


def test_the_command_finds_them_with_the_packaged_model(tmp_path: Path) -> None:
    texts = [text for pair in (*SAME[:2], *OTHER[:1]) for text in pair]
    source, out, report = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "report.json"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
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
    done = CliRunner().invoke(app, [*command, "--meaning", "0.9"])
    assert done.exit_code == 0, done.output
    assert "semantic-duplicate" in done.output
    told = json.loads(report.read_text())
    assert [(drop["row"], drop["reason"], drop["match"]) for drop in told["dropped"]] == [
        (1, "semantic-duplicate", "0"),
        (3, "semantic-duplicate", "2"),
        (4, "semantic-duplicate", "2"),
    ]
    assert all(0.9 <= drop["similarity"] < 1 for drop in told["dropped"])
    assert CliRunner().invoke(app, command).exit_code == 0
    assert json.loads(report.read_text())["dropped"] == []
    assert CliRunner().invoke(app, [*command, "--meaning", "0.2"]).exit_code == 2
