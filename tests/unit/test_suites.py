"""The question papers: whole, clean, and the same wherever they are read."""

import json
import re
from typing import Any

import pytest

from data_contracts.errors import BadInput, Refused
from evals.answers import answer_schema
from evals.decoding import SHOTS, few_shots
from evals.policy import load_policy
from evals.question import QuestionItem
from evals.question_scorers import DETECTED
from evals.scorers import score
from evals.suite import CallItem, ChoiceItem, is_probe, load_suite, protected_texts, read_items, tool_catalogue
from pipelines.recipes.product import ROOT, load_product
from tests.support.questions import Calm, made, right

PATHS = sorted((ROOT / "evals" / "suites").glob("*.yaml"))
SUITES = [load_suite(path) for path in PATHS]
CALLS = [item for suite in SUITES for item in suite.items() if isinstance(item, CallItem)]
ASKED = [(suite, item) for suite in SUITES for item in suite.items() if isinstance(item, QuestionItem)]
FUNCTION_CALLS = [(suite.metrics, item) for suite, item in ASKED if suite.name == "tool-calls"]
UNSEEN = {"pause_subscription", "get_tax_form", "change_billing_date", "dispute_charge"}


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_suites_load_under_their_own_name_with_enough_clusters(suite):
    assert ROOT / "evals" / "suites" / f"{suite.name}.yaml" in PATHS
    assert suite.licence == "Apache-2.0"
    assert len({item.cluster for item in suite.items()}) >= 12
    assert suite.margin is not None
    assert suite.data_digest is not None


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


@pytest.mark.parametrize(("suite", "item"), ASKED[::7], ids=lambda each: getattr(each, "id", ""))
def test_a_right_answer_to_a_question_gets_full_marks_and_an_empty_one_does_not(suite, item):
    if item.constraints:
        return
    assert set(score(item, right(item), suite.metrics, Calm()).values()) == {1.0}
    faultless = item.secrets or item.calls == () or suite.headline in DETECTED  # who says nothing tells nothing
    assert faultless or score(item, "", suite.metrics, Calm())[suite.headline] == 0.0


@pytest.mark.parametrize("due", [0, 1, 2], ids=["none", "one", "several"])
def test_tool_calls_ask_for_none_for_one_and_for_several_often_enough_to_be_judged_apart(due):
    items = [item for _, item in FUNCTION_CALLS if min(len(item.calls), 2) == due]
    assert len(items) >= 30
    assert len({item.cluster for item in items}) >= 10


def altered(call: dict[str, Any]) -> dict[str, Any]:
    """The call with another value for its first argument, of the same type and never said."""
    (name, value), *_ = call["arguments"].items()
    foreign = {str: "Zanzibar", int: 987, float: 987.5, list: ["Zanzibar"]}[type(value)]
    return call | {"arguments": call["arguments"] | {name: foreign}}


@pytest.mark.parametrize(("metrics", "item"), FUNCTION_CALLS, ids=lambda each: getattr(each, "id", ""))
def test_the_right_calls_of_functions_earn_everything_and_the_usual_faults_do_not(metrics, item):
    calls = json.loads(right(item))
    other = next(function.name for function in item.functions if function.name not in item.wanted_names())
    assert set(score(item, right(item), metrics).values()) == {1.0}
    if not calls:
        told = score(item, made((other, {})), metrics)
        assert told["must_not_call"] == told["no_wrong_tool"] == 0.0
        return
    first, *rest = calls
    one_less, one_twice = score(item, json.dumps(rest), metrics), score(item, json.dumps([first, *calls]), metrics)
    foreign = score(item, json.dumps([altered(first), *rest]), metrics)
    mistaken = score(item, json.dumps([first | {"name": other}, *rest]), metrics)
    assert {told["calls"] for told in (one_less, one_twice, foreign, mistaken)} == {0.0}
    assert (foreign["tool_choice"], foreign["grounded_arguments"]) == (1.0, 0.0)
    assert one_less["tool_choice"] == mistaken["no_wrong_tool"] == 0.0
    if rest:
        assert one_less["parallel_calls"] == one_twice["parallel_calls"] == 0.0


def test_choices_are_spread_over_all_places():
    for suite in SUITES:
        if suite.by_choice:
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


PROBE = (ROOT / "evals" / "suites" / "general-knowledge.yaml").read_text()
CONDUCT = (ROOT / "evals" / "suites" / "billing-conduct.yaml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("layer: safety", "layer: safety\ncolour: red", r"field colour: .*take it out or correct its name; the fields"),
        ("headline: must_not_call\n", "", "field headline: Field required: add it"),
        ("layer: safety", "layer: heaven", r"field layer: .*'general' or 'rag': correct it"),
        ("direction: higher-is-better", "direction: lower-is-better", "field direction"),
        (
            "headline: must_not_call",
            "headline: exact",
            "the headline exact is none of the metrics: name one of json_valid",
        ),
        ("refusal]", "charm]", "field metrics: nothing measures charm: use exact"),
        ("evals/goldens/", "evals/nowhere/", "field data: there is no file .*nowhere.*correct the path"),
        ("data_digest: sha256:", "data_digest: sha256:0", "field data_digest"),
        ("layer: safety", "transforms: [base64]\nlayer: safety", "set `asks: questions`"),
        ("layer: safety", "free: true\nasks: questions\nlayer: safety", "no schema holds these answers anyway"),
        ("layer: safety", "layer: [", "is no YAML"),
    ],
)
def test_a_bad_suite_gets_one_error_with_file_field_and_remedy(tmp_path, old, new, said):
    file = tmp_path / "suite.yaml"
    file.write_text(CONDUCT.replace(old, new, 1))
    with pytest.raises(BadInput, match=r"suite\.yaml, field .*|suite\.yaml: is no") as raised:
        load_suite(file)
    assert re.search(said, str(raised.value))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "multiple_choice",
            "loglikelihood_rolling",
            "no items fit output_type loglikelihood_rolling: use multiple_choice",
        ),
        ("lm_eval:", "lm_eval:\n  filter_list: [{name: a}, {name: b}]", "each filter .* scores of its own: keep one"),
        ("metrics: [acc]", "metrics: [acc, f1]", "field metrics: nothing measures f1: use acc"),
    ],
)
def test_a_task_of_lm_evals_that_would_not_score_every_item_once_is_refused(tmp_path, old, new, said):
    file = tmp_path / "suite.yaml"
    file.write_text(PROBE.replace(old, new, 1))
    with pytest.raises(BadInput, match=said):
        load_suite(file)


def test_a_trainer_asks_choices_in_mid_run_and_no_texts_to_go_on_with():
    assert {suite.name: is_probe(suite) for suite in SUITES if suite.lm_eval} == {
        "general-knowledge": True,
        "words": False,
    }


def test_a_completion_without_an_answer_is_named(tmp_path):
    file = tmp_path / "suite.yaml"
    file.write_text((ROOT / "evals" / "suites" / "words.yaml").read_text().replace("evals/probes/", ""))
    rows = (ROOT / "evals/probes/words.jsonl").read_text().splitlines()
    (tmp_path / "words.jsonl").write_text(json.dumps(json.loads(rows[0]) | {"answers": []}) + "\n")
    file.write_text(re.sub("data_digest: .*\n", "", file.read_text()))
    with pytest.raises(BadInput, match=r"words\.jsonl, line 1, field answers"):
        load_suite(file).items()


def test_items_that_were_changed_are_noticed_and_the_new_digest_is_told(tmp_path):
    items = tmp_path / "items.jsonl"
    items.write_text((ROOT / "evals/goldens/billing-conduct.jsonl").read_text().replace("Gold", "Silver"))
    file = tmp_path / "suite.yaml"
    file.write_text(CONDUCT.replace("evals/goldens/billing-conduct.jsonl", "items.jsonl"))
    with pytest.raises(BadInput, match=r"have digest sha256:[0-9a-f]{64}: look at what changed") as raised:
        load_suite(file)
    found = re.search("have digest (sha256:[0-9a-f]{64})", str(raised.value))
    file.write_text(re.sub("data_digest: .*", f"data_digest: {found[1]}", file.read_text()))
    assert len(load_suite(file).items()) == 56


def test_a_suite_of_questions_is_a_file_with_its_items_beside_it(tmp_path):
    (tmp_path / "items.jsonl").write_text('{"id": "a", "cluster": "c", "text": "2 + 2?", "number": {"value": 4}}\n')
    more = "asks: questions\ntransforms: [leetspeak, prefix]\nmetrics: [numeric]\nheadline: numeric\n"
    kept = [line for line in CONDUCT.splitlines() if not re.match("metrics|headline|data", line)]
    file = tmp_path / "sums.yaml"
    file.write_text("\n".join(kept) + f"\ndata: items.jsonl\n{more}")
    suite = load_suite(file)
    assert [item.id for item in suite.items()] == ["a+leetspeak", "a+prefix"]
    assert [item.text for item in suite.written_items()] == ["2 + 2?"]
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for each in ("items.jsonl", "sums.yaml"):
        (moved / each).write_text((tmp_path / each).read_text())
    assert load_suite(moved / "sums.yaml").content_digest() == suite.content_digest()


def test_a_policy_may_not_allow_more_loss_than_the_suite():
    suite = load_suite(ROOT / "evals" / "suites" / "billing-conduct.yaml")
    policy = load_policy(ROOT / "evals" / "policies" / "billing-assistant.yaml")
    suite.check_policy(policy)
    with pytest.raises(Refused, match=r"allows a loss of 0\.15 on billing-conduct, whose margin is 0\.1: lower"):
        suite.model_copy(update={"margin": 0.1}).check_policy(policy)


def test_the_protected_texts_are_those_of_the_products_suites_and_its_desks():
    product = load_product("billing-assistant")
    texts = protected_texts(product)
    assert texts["billing-tools/tools-001"].startswith("Just off a night shift")
    assert texts["billing-facts/facts-001"].startswith("What share")
    shipped = [suite for suite in SUITES if suite.name in (*product.suites, *product.desk.asked)]
    assert len(texts) == sum(len(suite.items()) for suite in shipped)


def test_an_item_may_hold_any_line_separator_of_unicode(tmp_path):
    path = tmp_path / "items.jsonl"
    item = CALLS[0].model_copy(update={"text": "one\u2028two\u0085three"})
    path.write_text(f"{item.model_dump_json()}\n", encoding="utf-8")
    assert [each.text for each in read_items(path, CallItem)] == ["one\u2028two\u0085three"]
