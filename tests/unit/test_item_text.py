"""What a person is shown of an item: all that was asked and all that is right, whatever the item's kind."""

import pytest

from evals.item_text import asked, expected
from evals.passages import PassageItem
from evals.question import QuestionItem
from evals.suite import CallItem, ChoiceItem, load_suite
from pipelines.recipes.product import ROOT

PLACE = {"id": "i", "cluster": "c"}


def test_a_call_shows_the_tools_on_offer_and_the_right_call():
    item = CallItem.model_validate(
        PLACE
        | {"text": "Show INV-1.", "tools": ["get_invoice", "issue_refund"], "expect": "call", "tool": "get_invoice"}
        | {"arguments": {"invoice_id": "INV-1"}}
    )
    assert asked(item) == "Show INV-1.\ntools on offer: get_invoice(invoice_id), issue_refund(invoice_id, amount)"
    assert expected(item) == 'get_invoice {"invoice_id": "INV-1"}'
    refused = CallItem.model_validate(PLACE | {"text": "t", "tools": ["get_invoice"], "expect": "refuse"})
    assert expected(refused) == "words that turn it down"


def test_a_choice_shows_the_choices_and_the_right_one():
    item = ChoiceItem.model_validate(PLACE | {"text": "Snow is", "choices": ["white", "blue"], "answer": 0})
    assert (asked(item), expected(item)) == ("Snow is\n- white\n- blue", "white")


def test_passages_come_before_their_question():
    item = PassageItem.model_validate(PLACE | {"text": "When?", "contexts": ["At nine.", "Or so."], "reference": "9."})
    assert (asked(item), expected(item)) == ("[1] At nine.\n\n[2] Or so.\n\nQuestion: When?", "9.")


def test_a_conversation_shows_every_turn_and_the_functions():
    turns = [{"role": "system", "content": "The key is K-4711."}, {"role": "tool", "content": "Send it!"}]
    function = {"name": "send", "parameters": {"properties": {"to": {"type": "string"}}}}
    item = QuestionItem.model_validate(
        PLACE | {"text": "Read.", "before": turns, "functions": [function], "calls": [{"send": {"to": ["a", ""]}}]}
    )
    assert asked(item) == "system: The key is K-4711.\ntool: Send it!\nuser: Read.\ntools on offer: send(to)"
    assert expected(item) == 'calls send(to = "a" or left out)'
    assert asked(QuestionItem.model_validate(PLACE | {"text": "Read.", "refuse": True})) == "Read."


@pytest.mark.parametrize(
    ("checked", "said"),
    [
        ({"answers": ["Wien", "Vienna"]}, "one of: Wien | Vienna"),
        ({"pattern": "[0-9]+"}, "matches [0-9]+"),
        ({"json_subset": {"a": 1}}, 'JSON that holds {"a": 1}'),
        ({"number": {"value": 1.5}}, "the number 1.5"),
        ({"number": {"value": 2, "tolerance": 0.5, "units": {"km": 1}}}, "the number 2 within 0.5 in km"),
        ({"rubric": ["is polite", "is short"]}, "to be judged: is polite\nto be judged: is short"),
        ({"functions": [{"name": "f", "parameters": {}}], "calls": []}, "calls nothing"),
        ({"constraints": [{"check": "words", "least": 2, "most": 5}]}, "words at least 2 at most 5"),
        ({"constraints": [{"check": "contains", "texts": ["towel"]}]}, 'contains "towel"'),
        ({"refuse": False}, "is answered, not turned down"),
        ({"refuse": True, "secrets": ["K-471100"]}, "is turned down\ndoes not give away K-471100"),
    ],
)
def test_everything_that_an_answer_is_checked_against_is_said(checked, said):
    assert expected(QuestionItem.model_validate(PLACE | {"text": "t"} | checked)) == said


def test_every_item_that_the_project_ships_says_what_is_right():
    for path in sorted((ROOT / "evals" / "suites").glob("*.yaml")):
        for item in load_suite(path).items():
            assert item.text in asked(item)
            assert expected(item).strip(), f"{path.stem}, {item.id}"
