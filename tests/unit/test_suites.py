"""The question papers: whole, clean, and the same wherever they are read."""

import pytest

from data_contracts.errors import BadInput
from evals.answers import answer_schema
from evals.decoding import SHOTS, few_shots
from evals.scorers import SCORERS, score
from evals.suite import CallItem, ChoiceItem, load_suite, protected_texts, read_items, tool_catalogue
from pipelines.recipes.product import ROOT, load_product

PATHS = sorted((ROOT / "evals" / "suites").glob("*.yaml"))
SUITES = [load_suite(path) for path in PATHS]
CALLS = [item for suite in SUITES if suite.lm_eval is None for item in read_items(suite.data_path(), CallItem)]
UNSEEN = {"pause_subscription", "get_tax_form", "change_billing_date", "dispute_charge"}


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_suites_load_under_their_own_name_with_enough_clusters(suite):
    assert ROOT / "evals" / "suites" / f"{suite.name}.yaml" in PATHS
    assert suite.licence == "Apache-2.0"
    assert len({item.cluster for item in suite.items()}) >= 12
    assert set(suite.metrics) <= (set(SCORERS) if suite.lm_eval is None else {"acc"})


def test_ids_and_texts_are_unique_over_all_suites():
    items = [item for suite in SUITES for item in suite.items()]
    assert len({item.id for item in items}) == len({item.text for item in items}) == len(items)


@pytest.mark.parametrize("item", CALLS, ids=lambda item: item.id)
def test_a_call_can_be_answered_from_the_message(item):
    assert len(item.text.split()) <= 40
    assert 3 <= len(item.tools) == len(set(item.tools)) <= 4
    assert all(value in item.text for value in (item.arguments or {}).values())


def test_trained_and_unseen_tools_are_kept_apart():
    assert {item.tool for item in CALLS if item.id.startswith("unseen-")} == UNSEEN
    assert {item.tool for item in CALLS if item.id.startswith("tools-")} == set(tool_catalogue()) - UNSEEN


def test_shots_are_no_goldens():
    texts = {item.text for suite in SUITES for item in suite.items()}
    assert not texts & {shot.text for shot in read_items(SHOTS, CallItem)}


def test_the_shots_and_the_schema_show_right_answers():
    """What the base is shown is what the scorers reward, for every tool that may be on offer."""
    shots = {shot.text: shot for shot in read_items(SHOTS, CallItem)}
    for item in CALLS:
        turns = few_shots(item.tools)
        assert len(turns) == 8
        assert len(answer_schema(item.offered(), 120)["anyOf"]) == len(item.tools) + 1
        for question, answer in zip(turns[::2], turns[1::2], strict=True):
            shot = shots[question["content"]]
            assert shot.expect == "reply" or shot.tool in item.tools
            assert set(score(shot, answer["content"], ("json_valid", "exact", "must_not_call")).values()) == {1.0}


def test_choices_are_spread_over_all_places():
    for suite in SUITES:
        if suite.lm_eval is not None:
            answers = [item.answer for item in read_items(suite.data_path(), ChoiceItem)]
            assert all(answers.count(place) >= len(answers) / 8 for place in range(4))


def test_the_digest_covers_the_items(tmp_path):
    suite = SUITES[0]
    copy = tmp_path / "items.jsonl"
    copy.write_bytes(suite.data_path().read_bytes())
    moved = suite.model_copy(update={"data": str(copy)})
    before = moved.content_digest()
    copy.write_text(copy.read_text().replace("?", "!", 1))
    assert moved.content_digest() != before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ('"tool": "get_invoice"', "not on offer"),
        ('"arguments": {}', "arguments are not those"),
        ('"expect": "reply"', "names a tool"),
        ('"tools": ["fly"]', "no tool fly"),
        ('"colour": "red"', "colour"),
    ],
)
def test_an_item_that_does_not_fit_is_named(tmp_path, change, reason):
    row = '{"id": "a", "cluster": "c", "text": "t", "tools": ["apply_coupon"], "expect": "call", "tool": "apply_coupon"'
    file = tmp_path / "items.jsonl"
    file.write_text(f'{row}, "arguments": {{"code": "X"}}, {change}}}\n')
    with pytest.raises(BadInput, match=rf"items\.jsonl, line 1(.|\n)*{reason}"):
        read_items(file, CallItem)


def test_an_id_that_comes_twice_is_named(tmp_path):
    file = tmp_path / "items.jsonl"
    file.write_text('{"id": "a", "cluster": "c", "text": "t", "choices": ["a", "b", "c", "d"], "answer": 0}\n' * 2)
    with pytest.raises(BadInput, match="line 2: the id a comes twice"):
        read_items(file, ChoiceItem)


def test_a_suite_with_an_unknown_field_or_no_data_is_refused(tmp_path):
    file = tmp_path / "suite.yaml"
    file.write_text(PATHS[0].read_text() + "colour: red\n")
    with pytest.raises(BadInput, match="colour"):
        load_suite(file)
    file.write_text(PATHS[0].read_text().replace("evals/goldens/", "evals/nowhere/"))
    with pytest.raises(BadInput, match="nowhere"):
        load_suite(file)


def test_the_protected_texts_are_those_of_the_products_suites():
    texts = protected_texts(load_product("billing-assistant"))
    assert texts["billing-tools/tools-001"].startswith("Just off a night shift")
    assert len(texts) == sum(len(suite.items()) for suite in SUITES)


def test_an_item_may_hold_any_line_separator_of_unicode(tmp_path):
    path = tmp_path / "items.jsonl"
    item = CALLS[0].model_copy(update={"text": "one\u2028two\u0085three"})
    path.write_text(f"{item.model_dump_json()}\n", encoding="utf-8")
    assert [each.text for each in read_items(path, CallItem)] == ["one\u2028two\u0085three"]
