"""Right and wrong calls of every kind, by the leaderboard's rules; `benchmarks/tool_calls.py` asks its own checker."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.tool_calls import Call, Function, fault


def function(name: str, required: tuple[str, ...], **properties: Any) -> Function:
    declared = {key: value if isinstance(value, dict) else {"type": value} for key, value in properties.items()}
    return Function(name=name, parameters={"type": "dict", "properties": declared, "required": list(required)})


BOOK = function(
    "boat.book",
    ("pier", "seats"),
    pier="string",
    seats="integer",
    price="float",
    covered="boolean",
    stops={"type": "array", "items": {"type": "string"}},
    speeds={"type": "array", "items": {"type": "float"}},
    at={"type": "tuple", "items": {"type": "float"}},
    skipper="dict",
    crew={"type": "array", "items": {"type": "dict"}},
    note="any",
)
DIVE = function("dive", ("depth",), depth="integer")
ACCEPTED: dict[str, list[Any]] = {
    "pier": ["St. Mary's Quay", "Quay 4"],
    "seats": [3],
    "price": [12.0, ""],
    "covered": [True, ""],
    "stops": [["Holm Isle", "Skerry"], ["Skerry"], ""],
    "speeds": [[4.5, 6.0], ""],
    "at": [[58.5, -3.1], ""],
    "skipper": [{"name": ["Ane"], "badge": [7, ""]}, ""],
    "crew": [[{"name": ["Bo"]}, {"name": ["Cy", "Si"]}], ""],
    "note": ["dog on board", ""],
}
NEEDED: dict[str, Any] = {"pier": "St. Mary's Quay", "seats": 3}


def found(arguments: dict[str, Any], name: str = "boat.book") -> str | None:
    return fault([DIVE, BOOK], [Call(name, arguments)], [{"boat.book": ACCEPTED}])


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"pier": "st marys-quay".replace("marys", "mary's")},
        {"pier": "QUAY-4"},
        {"pier": 'St Mary"s Quay'},
        {"price": 12},
        {"price": 12.0, "covered": True},
        {"stops": ["holm isle", "SKERRY."]},
        {"stops": ["Skerry"]},
        {"speeds": [4.5, 6.0]},
        {"at": (58.5, -3.1)},
        {"at": [58.5, -3.1]},
        {"skipper": {"name": "ane"}},
        {"skipper": {"badge": 7, "name": "Ane"}},
        {"crew": [{"name": "Bo"}, {"name": "Si"}]},
        {"note": "Dog on board"},
        {"stops": []},
    ],
    ids=str,
)
def test_what_the_rules_allow_is_right(given: dict[str, Any]) -> None:
    assert found(NEEDED | given) is None


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"pier": "Quay 5"}, "wrong-value"),
        ({"pier": 4}, "wrong-type"),
        ({"seats": 4}, "wrong-value"),
        ({"seats": 3.0}, "wrong-type"),
        ({"seats": "3"}, "wrong-type"),
        ({"seats": True}, "wrong-type"),
        ({"price": 12.5}, "wrong-value"),
        ({"price": "12"}, "wrong-type"),
        ({"covered": "True"}, "wrong-type"),
        ({"covered": 1}, "wrong-type"),
        ({"stops": ["Skerry", "Holm Isle"]}, "wrong-value"),
        ({"stops": "Skerry"}, "wrong-type"),
        ({"stops": [1]}, "wrong-value"),
        ({"stops": ("Skerry",)}, "wrong-type"),
        ({"speeds": [4, 6]}, "wrong-value"),
        ({"skipper": {"badge": 7}}, "wrong-value"),
        ({"skipper": {"name": "Ane", "boat": "x"}}, "wrong-value"),
        ({"skipper": {"name": "Bo"}}, "wrong-value"),
        ({"crew": [{"name": "Bo"}]}, "wrong-value"),
        ({"crew": [{"name": "Cy"}, {"name": "Bo"}]}, "wrong-value"),
        ({"dog": True}, "unexpected-argument"),
    ],
    ids=str,
)
def test_what_they_do_not_allow_is_named(given: dict[str, Any], kind: str) -> None:
    assert found(NEEDED | given) == kind


def test_a_required_argument_may_not_be_left_out_and_an_optional_one_only_where_it_says_so() -> None:
    assert found({"pier": "Quay 4"}) == "missing-required"
    strict = {"boat.book": {"pier": ["Quay 4"], "seats": [3], "covered": [True]}}
    assert fault([BOOK], [Call("boat.book", {"pier": "Quay 4", "seats": 3})], [strict]) == "missing-argument"


def test_a_declared_argument_for_which_nothing_is_accepted_is_unexpected() -> None:
    bare = {"boat.book": {"pier": ["Quay 4"], "seats": [3]}}
    call = Call("boat.book", {"pier": "Quay 4", "seats": 3, "note": "dog on board"})
    assert fault([BOOK], [call], [bare]) == "unexpected-argument"


def test_the_name_has_to_be_the_very_name() -> None:
    assert found(NEEDED, "boat_book") == "wrong-name"
    assert found(NEEDED, "dive") == "wrong-name"


def test_an_accepted_value_of_another_type_is_a_variable_and_compared_as_written() -> None:
    expected = [{"dive": {"depth": ["max_depth", ""]}}]
    assert fault([DIVE], [Call("dive", {"depth": "max_depth"})], expected) is None
    assert fault([DIVE], [Call("dive", {"depth": "Max Depth"})], expected) == "wrong-value"


def test_parts_of_a_list_have_their_type_unless_the_list_may_be_left_out() -> None:
    rows = function("rows", ("seats",), seats={"type": "array", "items": {"type": "float"}})
    assert fault([rows], [Call("rows", {"seats": [4, 6]})], [{"rows": {"seats": [[4.0, 6.0]]}}]) == "wrong-type"
    assert fault([rows], [Call("rows", {"seats": [4, 6]})], [{"rows": {"seats": [[4, 6]]}}]) is None


def test_calls_may_come_in_any_order_but_each_once() -> None:
    expected = [{"dive": {"depth": [5]}}, {"dive": {"depth": [9]}}, {"boat.book": ACCEPTED}]
    calls = [Call("boat.book", NEEDED), Call("dive", {"depth": 9}), Call("dive", {"depth": 5})]
    assert fault([BOOK, DIVE], calls, expected) is None
    assert fault([BOOK, DIVE], calls[:2], expected) == "wrong-count"
    assert fault([BOOK, DIVE], [*calls, calls[0]], expected) == "wrong-count"
    assert fault([BOOK, DIVE], [calls[0], calls[1], calls[1]], expected) == "wrong-value"
    assert fault([BOOK], [], []) is None
    assert fault([BOOK], [calls[0]], []) == "wrong-count"


def test_a_parameter_without_a_known_type_is_refused() -> None:
    with pytest.raises(ValueError, match="give parameter depth a type"):
        function("dive", ("depth",), depth={"description": "in metres"})
    with pytest.raises(ValueError, match="required names speed"):
        function("dive", ("speed",), depth="integer")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(list(ACCEPTED)), JSON)
def test_any_value_gets_a_verdict(name: str, value: Any) -> None:
    assert found(NEEDED | {name: value}) in (None, "wrong-type", "wrong-value")
