"""Rows that would teach nothing, or that do not fit, are refused by name and without their text."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.errors import BadInput
from data_contracts.records import ChatExample
from pipelines.stages.train.rows import check_rows, order, read_rows
from tests.support.tiny import CHATML, make_tiny_base
from tests.support.training import TEMPLATE, make_chats, make_pairs, write_rows


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(make_tiny_base(tmp_path / "base"))
    loaded.chat_template = TEMPLATE.read_text()
    return loaded


def _check(tokenizer: Any, rows: list[Any], max_length: int, where: str) -> None:
    check_rows(tokenizer, rows, [row.digest for row in rows], max_length, where)


def test_good_rows_pass(tokenizer: Any) -> None:
    _check(tokenizer, make_chats(3), 512, "train")
    _check(tokenizer, make_pairs(3), 512, "train")


@pytest.mark.parametrize("make", [make_chats, make_pairs])
def test_a_row_that_does_not_fit_is_named(tokenizer: Any, make: Any) -> None:
    with pytest.raises(
        BadInput, match=r"sft train rows, row sha256:[0-9a-f]{64}: \d+ tokens, and the recipe's max_length is 40"
    ):
        _check(tokenizer, make(2), 40, "sft train rows")


@pytest.mark.filterwarnings("ignore:return_assistant_tokens_mask==True but chat template")  # what is tested here
def test_a_row_without_a_learnable_token_is_named(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML
    with pytest.raises(BadInput, match=r"train, row sha256:[0-9a-f]{64}: every label is masked"):
        _check(tokenizer, make_chats(2), 512, "train")


def test_no_rows_is_an_error(tokenizer: Any) -> None:
    with pytest.raises(BadInput, match="validation: there are no rows"):
        _check(tokenizer, [], 512, "validation")


def test_a_broken_row_is_named_without_its_text(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "train.jsonl", make_chats(2))
    path.write_text(path.read_text() + '{"messages": "SECRET"}\n')
    with pytest.raises(BadInput, match=r"train\.jsonl, row 3: not a ChatExample \(messages\)") as caught:
        read_rows(path, ChatExample)
    assert "SECRET" not in str(caught.value)


@given(st.integers(1, 60), st.integers(1, 150), st.integers(0, 99))
def test_every_row_is_seen_once_before_one_is_seen_twice(rows: int, count: int, seed: int) -> None:
    found = order(rows, count, seed)
    assert found == order(rows, count, seed)
    assert len(found) == count
    seen = Counter(found)
    times = {seen[index] for index in range(rows)}
    assert max(times) - min(times) <= 1


def test_another_seed_is_another_order() -> None:
    assert len({tuple(order(8, 8, seed)) for seed in range(9)}) > 1
