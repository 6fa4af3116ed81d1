"""Evaluation items in training rows: in their own words, in others, and what is none."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from data_contracts.errors import BadInput
from pipelines.cli import app
from pipelines.stages.data import steps
from pipelines.stages.data.contamination import Contamination
from pipelines.stages.data.decontaminate_file import decontaminate_file
from resources.embedding import SentenceEmbedder
from tests.support.data import DataParts, product_of, write_contract

ITEM = "A ferry carries 37 cars on each of 6 trips a day, how many cars does it carry in one week?"
OTHER = "Name the river that flows through the town in which the first bridge of cast iron was built."
TEMPLATE = "Please read the following task with care and answer it in one short sentence only:"


class StoryEmbedder:
    """Knows of what a text tells and little more: two texts on a ferry have cosine 0.9, as have two on a bridge."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.asked = 0

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += len(texts)
        vectors = np.zeros((len(texts), 2 + 1000), dtype=np.float32)
        for row, text in enumerate(texts):
            if text not in self.seen:
                self.seen.append(text)
            vectors[row, 0 if "ferry" in text else 1] = 0.9**0.5
            vectors[row, 2 + self.seen.index(text)] = 0.1**0.5
        return vectors


def held(items: list[str], text: str) -> int | None:
    (hit,) = Contamination(items).find([text])
    return None if hit is None else hit.item


@pytest.mark.parametrize(
    "text",
    [
        ITEM,
        ITEM.upper().replace(",", " "),
        f"{TEMPLATE}\n\n{ITEM}\n\nAnswer: 1554",
        ITEM.replace("each of", "each of its"),
        "carries 37 cars on each of 6 trips a day, how many cars",
    ],
)
def test_an_item_is_found_whole_in_other_writing_in_a_longer_text_nearly_whole_and_in_part(text: str) -> None:
    assert held([OTHER, ITEM], text) == 1


def test_a_shared_turn_of_phrase_is_no_leak() -> None:
    told = "Anna sells 12 pies a day at her stall, how many cars does it carry in one week? She has no cars at all."
    assert held([ITEM], told) is None


def test_what_all_items_begin_with_is_no_evidence() -> None:
    items = [f"{TEMPLATE} {item}" for item in (ITEM, OTHER, "Is it warm?", "Who was first on the moon?")]
    assert held(items, f"{TEMPLATE} What do whales eat?") is None
    assert held(items, f"{TEMPLATE} Who was first on the moon?") == 3


@pytest.mark.parametrize(
    ("item", "text", "found"),
    [
        ("Reset my password", "reset my PASSWORD!", True),
        ("Reset my password", "Hello there\nReset my password\nThank you", True),
        ("Reset my password", "Please reset my password for me today", False),
        ("Reset my password", "Reset", False),
        ("?!", "anything", False),
        ("?!", "", False),
        ("?!", "...", False),
        (ITEM, "how many cars", False),
        (ITEM, "", False),
    ],
)
def test_a_short_item_is_held_only_by_a_text_or_a_line_of_just_its_words(item: str, text: str, found: bool) -> None:
    assert (held([item], text) is not None) is found


@given(st.lists(st.sampled_from(ITEM.split() + OTHER.split()), min_size=1, max_size=20), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_a_text_that_holds_an_item_word_for_word_is_always_found(around: list[str], place: int) -> None:
    items = [OTHER, "Reset my password", ITEM, f"{OTHER} {OTHER}"]
    text = "\n".join([" ".join(around), items[place], " ".join(reversed(around))])
    assert held(items, text) is not None


def test_a_paraphrase_has_the_meaning_and_the_numbers_of_the_item() -> None:
    embedder = StoryEmbedder()
    contamination = Contamination([ITEM, OTHER], embedder)
    hits = contamination.find(
        [
            "In a week, what number of cars goes over by a ferry with 6 daily trips of 37 cars?",
            "The ferry sells 250 tickets at 4 euros. What does it earn?",
            "The recipe needs 6 eggs and 37 grams of flour, one day old.",
        ]
    )
    assert [(hit.item, hit.how) if hit else None for hit in hits] == [(0, "paraphrase"), None, None]


def test_a_text_is_embedded_once_and_not_at_all_when_its_words_are_enough() -> None:
    embedder = StoryEmbedder()
    contamination = Contamination([ITEM], embedder)
    first = contamination.find(["Any bridge?", ITEM, "Any bridge?"])
    assert contamination.find(["Any bridge?", ITEM, "Any bridge?"]) == first
    assert embedder.asked == 2


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_command_lists_each_hit_with_both_texts(tmp_path: Path) -> None:
    rows = [{"text": text, "id": number} for number, text in enumerate([OTHER, "Quite another matter.", ITEM.lower()])]
    files = {
        "--in": write(tmp_path / "in.jsonl", rows),
        "--against": write(tmp_path / "eval.jsonl", [{"q": "Is it warm?"}, {"q": ITEM}]),
        "--out": tmp_path / "out.jsonl",
        "--report": tmp_path / "report.json",
    }
    words = ["data", "decontaminate", "--field", "text", "--against-field", "q", "--no-semantic"]
    words += [word for option, path in files.items() for word in (option, str(path))]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "3 rows in, 2 out, 1 dropped" in done.output
    assert [json.loads(line)["id"] for line in files["--out"].read_text().splitlines()] == [0, 1]
    drop = {"row": 2, "reason": "contaminated: verbatim", "match": ITEM, "match_row": 1, "score": 1.0}
    assert json.loads(files["--report"].read_text()) == {
        "in": 3,
        "out": 2,
        "dropped": [drop | {"text": ITEM.lower()}],
    }


@given(
    st.lists(
        st.sampled_from([ITEM, OTHER, "Is it warm?", "No.", "A long tale of a ferry and of a bridge."]), min_size=1
    )
)
@settings(max_examples=20, deadline=None)
def test_rows_in_are_rows_out_and_dropped(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("files")
    source = write(folder / "in.jsonl", [{"text": text} for text in texts])
    against = write(folder / "eval.jsonl", [{"text": ITEM}])
    found = decontaminate_file(source, "text", against, "text", folder / "out.jsonl", None, StoryEmbedder())
    kept = [json.loads(line)["text"] for line in (folder / "out.jsonl").read_text().splitlines()]
    assert found["in"] == len(texts) == len(kept) + len(found["dropped"])
    assert kept == [text for text in texts if text != ITEM]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b'{"text": "a"}\nnot json\n', "line 2 is not JSON"),
        (b'{"text": "a"}\n{"body": "a"}\n', "line 2: the field 'text' is missing"),
        (b'{"text": "\xff"}\n', "line 1 is not UTF-8"),
    ],
)
@pytest.mark.parametrize("which", ["in", "eval"])
def test_a_file_of_no_use_is_one_error_and_leaves_nothing(tmp_path: Path, which: str, data: bytes, said: str) -> None:
    good = b'{"text": "a"}\n'
    for name in ("in", "eval"):
        (tmp_path / f"{name}.jsonl").write_bytes(data if name == which else good)
    files = (tmp_path / "in.jsonl", "text", tmp_path / "eval.jsonl", "text", tmp_path / "out.jsonl")
    with pytest.raises(BadInput, match=said) as refused:
        decontaminate_file(*files, tmp_path / "report.json")
    assert f"{which}.jsonl" in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["eval.jsonl", "in.jsonl"]


def test_a_folder_that_holds_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"{tmp_path} is no folder of a sentence-transformers model"):
        SentenceEmbedder(tmp_path).embed(["a"])


def test_the_model_that_is_installed_finds_a_paraphrase_and_lets_a_neighbour_be() -> None:
    contamination = Contamination([ITEM, OTHER], SentenceEmbedder())
    hits = contamination.find(
        [
            "A ferry makes 6 trips every day, each with 37 cars on board. What number of cars does it carry weekly?",
            "A bus makes 9 trips a day with 52 passengers on each. How much does it take in if a ticket costs $3?",
        ]
    )
    assert [hit.item if hit else None for hit in hits] == [0, None]


class AllAlike:
    identity = "all alike"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.ones((len(texts), 1), dtype=np.float32)


@pytest.mark.parametrize(("setting", "dropped"), [({}, {}), ({"similarity": 0.67}, {"contaminated": 1})])
def test_the_line_takes_out_items_in_other_words_where_the_product_asks_for_it(
    tmp_path: Path, setting: dict[str, float], dropped: dict[str, int]
) -> None:
    paraphrase = {"text": "qqq invoice zzz", "intent": "vvv"}
    rows = [*({"text": f"vvv{n} www{n} xxx{n}", "intent": "yyy"} for n in range(5)), paraphrase]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    contract = write_contract(tmp_path / "c.yaml", {"text": "string", "intent": "string"})
    source = {"url": str(tmp_path / "rows.jsonl"), "contract": contract}
    mapped = source | {"mapping": {"user": "{text}", "assistant": "{intent}"}}
    product, parts = product_of(tmp_path, mapped, decontaminate=setting), DataParts(tmp_path / "home")
    parts.embedder = AllAlike()
    manifest, _ = steps.raw(parts, product)
    for step in (steps.contracted, steps.ledgered, steps.scrubbed, steps.deduplicated, steps.decontaminated):
        manifest, _ = step(parts, product, manifest)
    assert manifest.counts.dropped == dropped
    for _, _, reason, row in parts.datasets.read_quarantine(manifest.action_key):
        assert "says in other words" in reason
        assert row["example"]["messages"][0]["content"] == "qqq invoice zzz"
