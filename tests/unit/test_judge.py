"""A judge is asked as its file says, and its verdict is read or has failed; agreement with people is measured."""

import json
from typing import Any

import pytest

from data_contracts.errors import BadInput, Unavailable
from evals.calibration import calibrate, read_set
from evals.judge import Judge, PromptJudge, SetMapping, judge_all, load_judge, load_policy, read_verdict, request
from tests.support.judging import endpoint, faithful_rows, labelled, oracle, paired_rows, prompt_judge, prompt_of
from tests.support.ports import free_ports
from tests.support.teacher import Body, Reply, teaching

FAITHFUL, PREFERENCE = (Judge(prompt_judge(name), "m") for name in ("faithfulness", "preference"))
RULE = load_policy("default")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("It says so.\nVerdict: faithful", "faithful"),
        ("**Verdict: Unfaithful.**\n\n", "unfaithful"),
        ('{"verdict": "faithful"}', "faithful"),
        ("FAITHFUL", "faithful"),
        ("Final verdict - unfaithful!", "unfaithful"),
        ("Verdict: faithful or unfaithful", None),
        ("Verdict: faithful\nor is it?", None),
        ("Verdict: not faithful", None),
        ("Verdict: NaN", None),
        ("The response is faithful", None),
        ("", None),
        ("\n...\n", None),
    ],
)
def test_a_verdict_is_the_last_line_and_nothing_else(text, word):
    assert read_verdict(text, ("faithful", "unfaithful")) == word


def test_judged_texts_cannot_put_in_other_texts():
    body = request(FAITHFUL, {"context": "{response}", "question": "{context}", "response": "secret"})
    assert prompt_of(body).count("secret") == 1
    assert "{context}" in prompt_of(body)


def test_a_judge_is_another_one_when_model_prompt_or_decoding_change_and_not_when_the_set_does():
    def changed(**values: Any) -> str:
        return Judge(PromptJudge.model_validate(PREFERENCE.file.model_dump() | values), "m").identity

    same = PREFERENCE.identity
    assert changed() == same
    columns = {"question": "q", "first": "a", "second": "b"}
    assert changed(set={"columns": columns, "label": "l", "labels": {"1": "A"}}) == same
    others = [
        PREFERENCE._replace(model="m2").identity,
        PREFERENCE._replace(template="{{ messages }}").identity,
        changed(prompt=PREFERENCE.file.prompt + " "),
        changed(system="You judge."),
        changed(decoding={"max_tokens": 256, "temperature": 0.1}),
        FAITHFUL.identity,
    ]
    assert len({same, *others}) == 7


def test_pairs_are_asked_in_both_orders_and_a_judge_of_places_contradicts_itself():
    def always_a(body: Body, before: int) -> Reply:
        return Reply("Verdict: A")

    rows = paired_rows(50)
    with teaching(oracle(rows)) as server:
        good = calibrate(PREFERENCE, endpoint(server.url), labelled(rows, PREFERENCE))
        assert len(server.seen) == 100
    with teaching(always_a) as server:
        bad = calibrate(PREFERENCE, endpoint(server.url), labelled(paired_rows(16), PREFERENCE))
    assert (good.kappa, good.consistency, good.first_place, good.distrust(RULE)) == (1, 1, 0.5, "")
    assert (bad.consistency, bad.first_place, bad.agreement) == (0, 1, 0)
    assert bad.counts == {"A": {"inconsistent": 8}, "B": {"inconsistent": 8}}
    assert "consistency 0.000" in bad.distrust(RULE)


def test_every_way_of_failing_is_counted_and_none_is_left_out():
    rows = faithful_rows(40)
    right = oracle(rows)
    ways = [Reply(""), Reply("I cannot say."), Reply(status=500), Reply(delay=3), Reply("Verdict: NaN")]
    ways += [Reply(raw="<html>gateway</html>"), Reply(status=400)]

    def reply(body: Body, before: int) -> Reply:
        row = next(n for n, row in enumerate(rows) if row["response"] in prompt_of(body))
        return ways[row] if row < len(ways) else right(body, before)

    with teaching(reply) as server:
        found = calibrate(FAITHFUL, endpoint(server.url, timeout=1, retries=0), labelled(rows, FAITHFUL))
    assert found.failures == {
        "empty answer": 1,
        "no verdict in the answer": 2,
        "no answer in time": 1,
        "the answer is no chat completion": 1,
        "the endpoint answered with status 400": 1,
        "the endpoint answered with status 500": 1,
    }
    assert (found.items, found.asked) == (40, 40)
    assert sum(sum(row.values()) for row in found.counts.values()) == 40
    assert found.agreement == 33 / 40
    assert "7 of 40 questions got no verdict" in found.distrust(RULE)


def test_an_endpoint_that_always_fails_is_a_bad_judge_and_one_that_is_not_there_is_an_error():
    rows = faithful_rows(16)
    with teaching(lambda body, before: Reply(status=503)) as server:
        found = calibrate(FAITHFUL, endpoint(server.url), labelled(rows, FAITHFUL))
    assert (found.kappa, found.failures) == (0, {"the endpoint answered with status 503": 16})
    with pytest.raises(Unavailable, match="failed 8 times in a row"):
        calibrate(FAITHFUL, endpoint(f"http://127.0.0.1:{free_ports(1)[0]}/v1"), labelled(rows, FAITHFUL))
    with teaching(lambda body, before: Reply(status=404)) as server, pytest.raises(Unavailable, match="model's name"):
        calibrate(FAITHFUL, endpoint(server.url), labelled(rows, FAITHFUL))


def test_a_rubric_gives_scores_between_nothing_and_all():
    judge = Judge(prompt_judge("reply-quality"), "m")
    with teaching(lambda body, before: Reply("Fine.\nVerdict: 4")) as server:
        (verdict,) = judge_all(
            judge, endpoint(server.url), {"i": {"question": "q", "criteria": ("c", "d"), "response": "r"}}
        ).values()
    assert (verdict.word, verdict.score) == ("4", 0.75)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"begin_label": "maybe"}, "line 3: the label 'maybe' in 'begin_label' is none of 'Fully attributable'"),
        ({"knowledge": None}, "line 3: the column 'knowledge' is no text"),
        ({"begin_label": None}, "line 3: the column 'begin_label' holds no value"),
    ],
)
def test_a_row_that_does_not_fit_is_named(change, said):
    rows = faithful_rows(10)
    rows[2] |= change
    with pytest.raises(BadInput, match=said):
        labelled(rows, FAITHFUL)


def test_labels_that_a_mapping_leaves_out_are_counted():
    mapping = FAITHFUL.file.set
    wanted = SetMapping.model_validate(mapping.model_dump() | {"labels": mapping.labels | {"Generic": None}})
    rows = faithful_rows(10)
    rows[4]["begin_label"] = "Generic"
    found = read_set(enumerate(rows), wanted, "set.jsonl")
    assert (len(found.items), found.left_out) == (9, 1)


def test_a_set_with_one_label_only_is_refused_before_anything_is_asked():
    rows = [row | {"begin_label": "Fully attributable"} for row in faithful_rows(20)]
    with teaching(oracle(rows)) as server:
        with pytest.raises(BadInput, match="same label"):
            calibrate(FAITHFUL, endpoint(server.url), labelled(rows, FAITHFUL))
        assert not server.seen


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"verdicts": {"A": 1, "B": 0.2}}, "one word each for 1, 0"),
        ({"verdicts": {"A": 1, "failed": 0}}, "no words for a verdict"),
        ({"prompt": "{question} {first}"}, "needs the places"),
        ({"prompt": "{question} {first} {second} {reference}"}, "no column for reference"),
        (
            {"set": {"columns": {"question": "q", "first": "a", "second": "b"}, "label": "l", "labels": {"1": "C"}}},
            "C is",
        ),
    ],
)
def test_a_judge_file_that_does_not_fit_is_refused(tmp_path, change, said):
    path = tmp_path / "judge.yaml"
    path.write_text(json.dumps(PREFERENCE.file.model_dump(mode="json") | change))
    with pytest.raises(BadInput, match=said):
        load_judge(str(path))
