"""What a plan may say, where its seeds come from, and what is asked for it."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from data_contracts.errors import BadInput, Refused
from pipelines.stages.data.synthetic.plan import check_terms, load_plan, load_seeds
from pipelines.stages.data.synthetic.requests import requests
from pipelines.stages.data.synthetic.sandbox import SANDBOXES, execute
from tests.support.teacher import plan_of

TEACHER = {"model": "m", "terms": "vendor terms, section 2"}
INTENT: dict[str, Any] = {"name": "open-invoice", "wants": "It.", "tool": "get_invoice"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour": "blue"}, "colour"),
        ({"licence": "free"}, "SPDX"),
        ({"per_stratum": 0}, "per_stratum"),
        ({"lengths": [{"name": "any", "words": [9, 3]}]}, "range of words"),
        ({"lengths": [{"name": "any", "words": [1, 3]}] * 2}, "lengths: a name stands twice"),
        ({"intents": [INTENT]}, "give either seeds or seed_file"),
        ({"intents": [INTENT | {"seeds": [{"question": "q", "answer": "a"}]}]}, "a seed needs arguments alone"),
        ({"tools": []}, "the tool get_invoice is not among the plan's tools"),
        ({"tools": [{"name": "fly", "description": "f"}, *plan_of().payload()["tools"]]}, "billing cannot execute fly"),
        ({"teacher": TEACHER}, "teacher.training"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        plan_of(**changes)


def test_a_plan_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.yaml cannot be read"):
        load_plan(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(BadInput, match=r"list\.yaml: plan: "):
        load_plan(tmp_path / "list.yaml")


@pytest.mark.parametrize("training", ["unclear", "forbidden"])
def test_a_teacher_whose_terms_do_not_allow_it_is_refused(training: str) -> None:
    plan = plan_of(teacher=TEACHER | {"training": training})
    with pytest.raises(Refused, match=rf"{training} under its terms \(vendor terms, section 2\)"):
        check_terms(plan.teacher)


def row(**more: object) -> dict[str, object]:
    """A seed row in the form of an output."""
    answer = json.dumps({"tool": "get_invoice", "arguments": {"invoice_id": "INV-3101"}})
    said = [{"role": "user", "content": "Open INV-3101."}, {"role": "assistant", "content": answer}]
    return {"id": "r1", "messages": said} | more


def from_file(folder: Path, *rows: object, seed_depth: int = 0) -> Any:
    path = folder / "seeds.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return plan_of(intents=[INTENT | {"seed_file": str(path)}], seed_depth=seed_depth)


@pytest.mark.parametrize(("stated", "floor", "depth"), [(None, 0, 0), (None, 1, 1), (1, 0, 1), (3, 1, 3), (0, 2, 2)])
def test_a_seed_counts_for_the_greater_depth_of_row_and_plan(
    tmp_path: Path, stated: int | None, floor: int, depth: int
) -> None:
    given = row() if stated is None else row(synthetic_depth=stated)
    (seed,) = load_seeds(from_file(tmp_path, given, seed_depth=floor))["open-invoice"]
    assert (seed.id, seed.question, seed.synthetic_depth) == ("r1", "Open INV-3101.", depth)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (row(synthetic_depth="one"), "line 1: synthetic_depth is not a whole number"),
        (row(licence="CC-BY-NC-4.0"), 'line 1: the seed is under "CC-BY-NC-4.0", and the plan\'s rows would be under'),
        ({"id": "r1"}, "line 1: is no conversation"),
        (row(messages=[{"role": "assistant", "content": "hello"}] * 2), "no message is the user's"),
        (row(messages=[{"role": r, "content": "Hello."} for r in ("user", "assistant")]), "r1: its answer is no valid"),
        (row(intent="another"), "has no row of the intent open-invoice"),
    ],
)
def test_a_seed_of_no_use_is_named(tmp_path: Path, given: object, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        load_seeds(from_file(tmp_path, given))


def test_requests_cover_every_stratum_and_are_the_same_each_time() -> None:
    lengths = [{"name": "short", "words": [3, 8]}, {"name": "long", "words": [9, 30]}]
    plan = plan_of(languages={"en": "English", "de": "German"}, lengths=lengths)
    made = list(requests(plan, load_seeds(plan), "served-name"))
    assert [each.digest for each in made] == [each.digest for each in requests(plan, load_seeds(plan), "served-name")]
    assert len({each.digest for each in made}) == len(made) == 2 * 2 * 2 * 6
    assert len({each.stratum for each in made}) == 8
    for each in made:
        told = each.body["messages"][0]["content"]
        assert plan.languages[each.language] in told
        assert f"{each.length.words[0]} to {each.length.words[1]} words" in told
        assert each.body["model"] == "served-name"
        assert each.body["response_format"]["json_schema"]["schema"]["required"] == ["question", "answer"]
    other = requests(plan_of(seed=4), load_seeds(plan_of(seed=4)), "served-name")
    assert not {each.digest for each in other} & {each.digest for each in made}


@pytest.mark.parametrize("draw", range(50))
def test_what_the_sandbox_tells_the_teacher_can_be_done(draw: int) -> None:
    billing = SANDBOXES["billing"]
    refund, paused = (billing.fact(tool, random.Random(draw)) for tool in ("issue_refund", "pause_subscription"))
    invoice, amount = re.findall(r"INV-[0-9]+|[0-9]+[.][0-9]+", refund)
    assert execute(billing, "issue_refund", {"invoice_id": invoice, "amount": amount}) == ""
    assert execute(billing, "get_invoice", {"invoice_id": invoice}) == ""
    assert execute(billing, "pause_subscription", {"months": re.findall("[0-9]+", paused)[0]}) == ""
