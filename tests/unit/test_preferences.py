"""Preference pairs from their raters to what is learned: who decides, who counts, and what goes out with why."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from data_contracts.errors import Refused
from data_contracts.manifests import DatasetManifest
from data_contracts.ratings import Label, PreferenceRule, Rating
from pipelines.recipes.product import Source
from pipelines.stages.data import steps
from pipelines.stages.data.adjudicate import Ballot, adjudicate
from pipelines.stages.data.integrity import check_dataset
from pipelines.stages.data.item import Dropped
from pipelines.stages.data.rows import load
from tests.support.data import DataParts, item, product_of, write_contract

RATERS = ("anna", "bert", "carl")
MAPPING = {
    "user": "{ask}",
    "first": "{one}",
    "second": "{two}",
    "ratings": {"columns": [*RATERS], "labels": {0: "tie", 1: "first", 2: "second"}, "guidelines": "v1"},
}


def rated(labels: list[str]) -> list[dict[str, Any]]:
    """Pairs with one label a rater, e.g. ``"12."``; a point is no rating."""
    return [
        {"ask": f"question {n} about {n * 7} and {n * 13}?", "one": f"first answer {n}", "two": f"second answer {n}"}
        | {who: None if said == "." else int(said) for who, said in zip(RATERS, given, strict=True)}
        for n, given in enumerate(labels)
    ]


def ledgered(
    home: Path, rows: list[dict[str, Any]], mapping: dict[str, Any] | None, rule: dict[str, Any] | None
) -> tuple[DataParts, DatasetManifest]:
    home.mkdir(exist_ok=True)
    (home / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kinds = {name: "integer" if name in RATERS else "string" for name in rows[0]} | (
        {"ratings": "array", "prompt": "array"} if "ratings" in rows[0] else {}
    )
    contract = home / "pairs.yaml"
    write_contract(contract, kinds)
    promised = yaml.safe_load(contract.read_text())
    for column in promised["schema"][0]["properties"]:
        column["required"] = False
    contract.write_text(yaml.safe_dump(promised))
    source: dict[str, Any] = {"url": str(home / "pairs.jsonl"), "contract": str(contract), "kind": "preference"}
    product = product_of(home, source | ({"mapping": mapping} if mapping else {}))
    if rule is not None:
        policy = yaml.safe_load((home / "policy.yaml").read_text())
        (home / "policy.yaml").write_text(yaml.safe_dump(policy | {"preferences": rule}))
    parts = DataParts(home / "store")
    contracted = steps.contracted(parts, product, steps.raw(parts, product)[0])[0]
    return parts, steps.ledgered(parts, product, contracted)[0]


def reasons(parts: DataParts, manifest: DatasetManifest) -> list[str]:
    return [reason for _, _, reason, _ in parts.datasets.read_quarantine(manifest.action_key)]


LABELS = ["111", "112", "222", "221", "10.", "000", "120", "12.", "1..", "...", "002", "211"]


def test_the_majority_decides_which_answer_is_learned(tmp_path: Path) -> None:
    parts, manifest = ledgered(tmp_path, rated(LABELS), MAPPING, None)
    pairs = {item.row["pair"]["chosen"]: item.row["pair"]["rejected"] for item in load(parts, manifest)}
    firsts, seconds = (0, 1, 8, 11), (2, 3)
    assert pairs == {f"first answer {n}": f"second answer {n}" for n in firsts if n != 11} | {
        f"second answer {n}": f"first answer {n}" for n in seconds
    } | {"first answer 11": "second answer 11"}
    assert manifest.counts.dropped == {"raters-disagree": 6}
    assert manifest.counts.balanced()
    assert check_dataset(parts, manifest) == []
    assert any("are tied" in reason for reason in reasons(parts, manifest))
    assert any("do not agree" in reason for reason in reasons(parts, manifest))
    assert any("nobody rated it" in reason for reason in reasons(parts, manifest))


def test_the_manifest_tells_of_raters_by_pseudonym(tmp_path: Path) -> None:
    _, manifest = ledgered(tmp_path, rated(LABELS), MAPPING, None)
    facts: Any = manifest.facts["ratings"]
    assert (facts["pairs"], facts["not_unanimous"], facts["decided_by"]) == (12, 7, {"majority": 6})
    assert facts["guidelines"]["v1"].keys() == {"alpha", "low", "high", "items", "raters"}
    assert facts["guidelines"]["v1"]["items"] == 10
    assert sorted(report["rated"] for report in facts["raters"].values()) == [8, 10, 11]
    said = json.dumps(manifest.payload())
    assert not any(who in said for who in (*RATERS, "answer", "question"))


def test_a_policy_demands_raters(tmp_path: Path) -> None:
    parts, manifest = ledgered(tmp_path, rated(LABELS), MAPPING, {"min_raters": 3})
    assert manifest.counts.dropped == {"raters-disagree": 3, "too-few-raters": 4}
    assert any("2 rated it, the policy's min_raters is 3" in reason for reason in reasons(parts, manifest))


def test_pairs_that_nobody_rated_do_not_pass_a_policy_that_demands_raters(tmp_path: Path) -> None:
    plain = {"user": "{ask}", "chosen": "{one}", "rejected": "{two}"}
    rows = [{"ask": "a?", "one": "b", "two": "c"}]
    assert ledgered(tmp_path / "free", rows, plain, None)[1].counts.rows_out == 1
    with pytest.raises(Refused, match=r"no row is left after ledgered \(1 too-few-raters\).*0 rated it"):
        ledgered(tmp_path / "strict", rows, plain, {"min_raters": 1})


def test_too_little_agreement_stops_the_step(tmp_path: Path) -> None:
    agreed, guessed = ["111", "222"] * 6, ["112", "221", "121", "212", "122", "211"] * 2
    rule = {"min_raters": 2, "min_alpha": 0.4}
    parts, manifest = ledgered(tmp_path / "good", rated(agreed), MAPPING, rule)
    assert manifest.counts.rows_out == 12
    told = (
        r"guidelines v1 are not shown to agree enough: .*alpha is -0\.\d+ \(95% interval .* 12 pairs, 3 raters\), and "
        r"the policy's min_alpha of 0\.4"
    )
    with pytest.raises(Refused, match=told):
        ledgered(tmp_path / "bad", rated(guessed), MAPPING, rule)
    with pytest.raises(Refused, match=r"5 items have two ratings.*min_alpha is 0\.4"):
        ledgered(tmp_path / "few", rated(agreed[:5]), MAPPING, rule)
    assert reasons(parts, manifest) == []


def test_an_estimate_from_few_pairs_does_not_show_agreement_and_from_many_it_does(tmp_path: Path) -> None:
    """Ten of twelve pairs are rated alike: alpha is about 0.7 both times."""
    pattern = ["111", "222"] * 5 + ["112", "221"]
    rule = {"min_raters": 2, "min_alpha": 0.5}
    with pytest.raises(Refused, match=r"alpha is 0\.7\d+ .*have more pairs rated by two, or clear up"):
        ledgered(tmp_path / "few", rated(pattern), MAPPING, rule)
    facts: Any = ledgered(tmp_path / "many", rated(pattern * 8), MAPPING, rule)[1].facts["ratings"]
    assert facts["guidelines"]["v1"]["low"] > 0.5
    assert 0.7 < facts["guidelines"]["v1"]["alpha"] < 0.8


def listed(number: int, ratings: list[dict[str, Any]]) -> dict[str, Any]:
    prompt = [{"role": "user", "content": f"question {number}?"}]
    return {"prompt": prompt, "first": f"one {number}", "second": f"two {number}", "ratings": ratings}


def say(rater: str, label: str, guidelines: str = "v2", **more: bool) -> dict[str, Any]:
    return {"rater": rater, "label": label, "guidelines": guidelines} | more


def test_a_list_of_ratings_with_an_adjudicator_and_versions(tmp_path: Path) -> None:
    rows = [
        listed(0, [say("anna", "first"), say("bert", "second"), say("dora", "second", adjudicator=True)]),
        listed(1, [say("anna", "first", "v1"), say("bert", "first", "v1")]),
        listed(2, [say("anna", "first"), say("bert", "first"), say("dora", "tie", adjudicator=True)]),
        listed(3, [say("anna", "first"), say("bert", "first")]),
        listed(4, [say("anna", "first"), say("anna", "second")]),
        listed(5, [say("anna", "left")]),
    ]
    parts, manifest = ledgered(tmp_path, rows, None, {"min_raters": 2, "guidelines": ["v2"]})
    assert {item.row["pair"]["chosen"] for item in load(parts, manifest)} == {"two 0", "one 3"}
    assert manifest.counts.dropped == {"raters-disagree": 1, "too-few-raters": 1}
    assert any("0 rated it under the guidelines v2" in reason for reason in reasons(parts, manifest))
    facts: Any = manifest.facts["ratings"]
    assert facts["decided_by"] == {"adjudicator": 1, "majority": 1}
    assert facts["guidelines"].keys() == {"v2"}
    assert len(facts["raters"]) == 2
    product = product_of(
        tmp_path,
        {"url": str(tmp_path / "pairs.jsonl"), "contract": str(tmp_path / "pairs.yaml"), "kind": "preference"},
    )
    contracted = steps.contracted(parts, product, steps.raw(parts, product)[0])[0]
    told = " ".join(reasons(parts, contracted))
    assert "a rater rates the pair twice" in told
    assert "ratings.0.label: Input should be 'first', 'second' or 'tie'" in told


@given(st.lists(st.tuples(st.sampled_from(["first", "second", "tie"]), st.booleans()), max_size=7))
def test_a_ruling_mirrors_when_the_places_are_swapped(given_labels: list[tuple[Label, bool]]) -> None:
    other: dict[Label | None, Label | None] = {"first": "second", "second": "first", "tie": "tie", None: None}

    def ratings(swap: bool) -> list[Rating]:
        return [
            Rating.model_validate(
                {"rater": f"r{n}", "label": other[label] if swap else label, "guidelines": "v1", "adjudicator": final}
            )
            for n, (label, final) in enumerate(given_labels)
        ]

    there, back = adjudicate(ratings(False)), adjudicate(ratings(True))
    assert back.better == other[there.better]
    assert (back.by, back.reason) == (there.by, there.reason)
    finals = {label for label, final in given_labels if final}
    if len(finals) == 1:
        assert there.better == (None if finals == {"tie"} else finals.pop())


@given(
    st.lists(st.text("012.", min_size=3, max_size=3), max_size=30),
    st.sampled_from([None, PreferenceRule(), PreferenceRule(min_raters=3), PreferenceRule(guidelines=("v2",))]),
)
def test_every_pair_is_kept_or_dropped_with_a_reason(labels: list[str], rule: PreferenceRule | None) -> None:
    source = Source.model_validate({"url": "pairs", "contract": "-", "kind": "preference", "mapping": MAPPING})
    ballot = Ballot({"pairs": source}, rule)
    ruled = [ballot.settle(item({"source": "pairs", "values": row, "n": n})) for n, row in enumerate(rated(labels))]
    dropped = [each for each in ruled if isinstance(each, Dropped)]
    assert all(each.reason.startswith("pairs: ") for each in dropped)
    assert {each for each in ruled if isinstance(each, str)} <= {"first", "second"}
    facts = ballot.facts(lambda name: name)
    assert not facts or sum(facts["ratings"]["decided_by"].values()) == len(ruled) - len(dropped)


def test_alpha_needs_two_raters() -> None:
    with pytest.raises(ValidationError, match="min_alpha needs min_raters of at least 2"):
        PreferenceRule(min_raters=1, min_alpha=0.4)
