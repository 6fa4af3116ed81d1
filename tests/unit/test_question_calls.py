"""Answers that call functions: read in every usual form, and each fault seen by the metric that it belongs to."""

from typing import Any

import pytest

from evals.call_text import fits_schema, read_calls
from evals.scorers import score
from evals.tool_calls import Call, Function
from tests.support.questions import BOTH, MAIL, TIMER, TWO, made, question


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOTH, {}),
        ("```json\n" + BOTH + "\n```", {"format_adherence": 0}),
        ("[timer.start(minutes=45), timer.start(minutes=5)]", {"format_adherence": 0}),
        ('<tool_call>{"name": "timer.start", "arguments": {"minutes": 45}}</tool_call>'
         '<tool_call>{"name": "timer.start", "arguments": {"minutes": 5}}</tool_call>', {"format_adherence": 0}),
        (made(("timer.start", {"minutes": 45})), {"calls": 0, "tool_choice": 0, "parallel_calls": 0}),
        (
            made(("timer.start", {"minutes": 45}), ("timer.start", {"minutes": 6})),
            {"calls": 0, "grounded_arguments": 0},
        ),
        (
            made(("timer.start", {"minutes": "45"}), ("timer.start", {"minutes": 5})),
            {"calls": 0, "grammar_valid": 0},
        ),
        (
            made(("timer.start", {"minutes": 45, "tone": "shrill"}), ("timer.start", {"minutes": 5})),
            {"calls": 0, "grammar_valid": 0, "grounded_arguments": 0},
        ),
        (
            made(("timer.start", {"minutes": 45, "tone": "soft"}), ("timer.start", {"minutes": 5})),
            {"calls": 0},
        ),
        (
            made(("timer.start", {"minutes": 45}), ("send_email", {"to": "5", "body": "tea"})),
            {"calls": 0, "tool_choice": 0, "parallel_calls": 0, "no_wrong_tool": 0},
        ),
        (
            made(("timer.start", {"minutes": 45}), ("clock.set", {"minutes": 5})),
            {"calls": 0, "grammar_valid": 0, "tool_choice": 0, "parallel_calls": 0, "no_wrong_tool": 0},
        ),
        (
            "I will do that.",
            {"calls": 0, "format_adherence": 0, "grammar_valid": 0, "tool_choice": 0, "parallel_calls": 0},
        ),
    ],
)  # fmt: skip
def test_each_fault_of_a_call_shows_in_its_own_metrics(text: str, expected: dict[str, float]) -> None:
    names = "calls format_adherence grammar_valid tool_choice no_wrong_tool grounded_arguments parallel_calls".split()
    found = score(question(functions=[TIMER, MAIL], calls=TWO), text, tuple(names))
    assert found == dict.fromkeys(names, 1.0) | expected


def test_where_no_call_is_right_words_and_an_empty_list_are() -> None:
    metrics = ("must_not_call", "format_adherence", "no_wrong_tool", "calls", "parallel_calls")
    item = question(functions=[TIMER], calls=[])
    assert score(item, "Sand runs down.", metrics) == {"must_not_call": 1, "format_adherence": 1, "no_wrong_tool": 1}
    assert score(item, "[]", metrics) == {"must_not_call": 1, "format_adherence": 1, "no_wrong_tool": 1}
    called = score(item, made(("timer.start", {"minutes": 5})), metrics)
    assert called == {"must_not_call": 0, "format_adherence": 1, "no_wrong_tool": 0}


@pytest.mark.parametrize(
    ("value", "ground"),
    [
        ("tea", True),
        ("Tea!", True),
        (5, True),
        (45.0, True),
        (46, False),
        (4.5, False),
        ("ea", False),
        ("timers for tea", True),
        ("2 027", True),
        (True, True),
        ("2027-03-04", True),
        ("2027-03-09", False),
        (["tea", 5], True),
        (["tea", "coffee"], False),
        (2, True),
        ("O'Hara", False),
    ],
)
def test_an_argument_that_nobody_said_is_made_up(value: Any, ground: bool) -> None:
    declared = {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "any"}}}}
    text = "Two timers: 5 for tea, 45. And on 4 March 2027 again."
    item = question(text=text, functions=[declared], calls=[{"f": {"x": ["tea"]}}])
    assert score(item, made(("f", {"x": value})), ("grounded_arguments",))["grounded_arguments"] == float(ground)


def test_calls_are_read_in_every_usual_form() -> None:
    call = (Call("a.b", {"x": 1}),)
    for text in (
        '{"name": "a.b", "arguments": {"x": 1}}',
        '[{"name": "a.b", "parameters": {"x": 1}}]',
        '{"tool": "a.b", "arguments": "{\\"x\\": 1}"}',
        '{"tool_calls": [{"function": {"name": "a.b", "arguments": "{\\"x\\": 1}"}}]}',
        "a.b(x=1)",
        "[a.b(x=1)]",
    ):
        assert read_calls(text) == call
    assert read_calls("[]") == ()
    assert read_calls("[a.b(t=(1, 2))]") == (Call("a.b", {"t": (1, 2)}),)
    for text in ("", "Sure.", "a.b(1)", "5", "[1]", "a.b(x=open('f'))", '{"name": "a.b"}', "<tool_call>x</tool_call>"):
        assert read_calls(text) is None


def test_a_schema_of_the_leaderboard_is_checked_as_one_of_json() -> None:
    declared = Function(
        name="f",
        parameters={
            "type": "dict",
            "properties": {"at": {"type": "tuple", "items": {"type": "float"}}, "of": {"type": "any"}},
            "required": ["at"],
        },
    )
    assert fits_schema([declared], [Call("f", {"at": (1.5, 2), "of": None})])
    assert not fits_schema([declared], [Call("f", {"at": ["1.5"]})])
    assert not fits_schema([declared], [Call("f", {"at": [1.5], "to": 1})])
