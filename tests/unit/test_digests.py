"""Names do not depend on order, batching or machine, and nothing else has the same name."""

import json
import random
import re

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.digests import canonical_json, hex_of, merkle_root, row_name, sha256_json

names = st.lists(st.binary(min_size=32, max_size=32).map(lambda raw: "sha256:" + raw.hex()), max_size=40)
texts = st.text(st.characters(exclude_categories=["Cs"]))
# A float beyond 2**53 that is a whole number is written like an integer, and an integer of that size has no name.
floats = st.floats(-(2**53) + 1, 2**53 - 1)
scalars = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | floats | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
KEY = bytes(range(32))


@given(names, st.integers())
def test_a_root_does_not_depend_on_the_order_of_rows(listed: list[str], seed: int) -> None:
    shuffled = listed[:]
    random.Random(seed).shuffle(shuffled)
    assert merkle_root(iter(shuffled)) == merkle_root(listed)


@given(names.filter(bool))
def test_a_root_sees_a_row_that_is_gone_or_there_twice(listed: list[str]) -> None:
    assert len({merkle_root(listed), merkle_root(listed[1:]), merkle_root([*listed, listed[0]])}) == 3


@given(values)
def test_canonical_json_is_json_and_the_same_after_a_round_trip(value: object) -> None:
    text = canonical_json(value)
    assert canonical_json(json.loads(text)) == text


@given(values)
def test_canonical_json_is_that_of_rfc_8785(value: object) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)
    assert canonical_json({"key": [value, ("tuple", {})]}) == rfc8785.dumps({"key": [value, ("tuple", {})]})


@pytest.mark.parametrize("value", ["\ud800", {"a": "\ud800"}, {1: 2}, {"a": {1}}, 2**53, -(2**53), b"bytes"])
def test_what_rfc_8785_refuses_is_refused_in_its_words(value: object) -> None:
    with pytest.raises(rfc8785.CanonicalizationError) as refused:
        rfc8785.dumps(value)
    with pytest.raises(rfc8785.CanonicalizationError, match=re.escape(str(refused.value))):
        canonical_json([value])


@given(st.dictionaries(texts, scalars, min_size=2))
def test_the_order_of_keys_does_not_matter(value: dict[str, object]) -> None:
    assert sha256_json(dict(reversed(value.items()))) == sha256_json(value)


@given(texts, st.binary(min_size=32, max_size=32))
def test_a_row_has_another_name_under_another_key(text: str, key: bytes) -> None:
    assert (row_name(key, text) == row_name(KEY, text)) == (key == KEY)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53 + 1])
def test_a_value_without_one_meaning_has_no_name(value: float) -> None:
    with pytest.raises(ValueError, match=r"JSON|nan|inf"):
        canonical_json({"x": value})


def test_a_short_key_and_a_wrong_digest_are_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        row_name(b"short", "{}")
    with pytest.raises(ValueError, match="not a digest"):
        hex_of("sha256:abc")
