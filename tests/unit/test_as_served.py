"""The serving layer of the line: who is timed in turns, what is kept, what the gate and a reviewer make of it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_contracts.errors import BadInput, Refused
from data_contracts.manifests import ModelManifest
from data_contracts.verdicts import EvalResult, GateVerdict, LayerResults
from evals.as_served import ServedTimes, measure_layer
from evals.gate import decide, evaluate_policy
from evals.policy import GatePolicy
from evals.report import measures
from evals.served_table import tables
from evals.serving_layer import BEHIND, METRICS
from evals.speedtest import SpeedTest, load_speed_test, speed_of
from pipelines.recipes.product import ROOT, load_product
from tests.support.speed import SpeedLine
from tests.support.streaming import Pace, streaming

BROKEN = "question 7"
CEILING = {"name": "whole", "kind": "ceiling", "suite": "small-speed", "metric": "failed", "margin": 0.5}


@pytest.fixture
def line(tmp_path: Path) -> Iterator[SpeedLine]:
    with streaming(lambda text: Pace(status=500) if text == BROKEN else Pace()) as server:
        yield SpeedLine(tmp_path, server)


def measured(
    line: SpeedLine, model: ModelManifest, champion: ModelManifest | None = None, fresh: bool = False
) -> tuple[LayerResults, bool]:
    small = line.small
    return measure_layer(small.parts, small.product, small.base, model, champion, fresh)


def results_of(line: SpeedLine, layer: LayerResults) -> dict[str, EvalResult]:
    return {name: line.small.parts.store.get_manifest(digest, EvalResult) for name, digest in layer.results.items()}


def times_of(line: SpeedLine, layer: LayerResults) -> ServedTimes:
    (samples,) = {str(result.samples) for result in results_of(line, layer).values()}
    return line.small.parts.store.get_manifest(samples, ServedTimes)


def decided(line: SpeedLine, model: ModelManifest, layer: LayerResults) -> GateVerdict:
    small = line.small
    return decide(small.parts, small.product, model, [small.scored(model), layer])[0]


def test_the_same_questions_go_to_each_in_turns_as_they_are_served(line: SpeedLine) -> None:
    model = line.small.candidate()
    layer, hit = measured(line, model)
    assert (layer.layer, hit, set(layer.results)) == ("serving", False, {"small-speed/base", "small-speed/candidate"})

    asked = [body for _, body in line.server.asked]
    assert len(asked) == 2 * (3 + 16)
    rounds = [asked[6 + 4 * n : 10 + 4 * n] for n in range(8)]
    assert [{body["model"] for body in each} for each in rounds] == [
        {who} for turn in range(4) for who in (["base", model.weights] if turn % 2 == 0 else [model.weights, "base"])
    ]
    texts = sorted(body["messages"][-1]["content"] for body in asked)
    assert texts == sorted([f"question {n}" for n in range(19)] * 2)
    bodies = [{name: value for name, value in body.items() if name != "model"} for body in asked]
    assert all(bodies.count(body) == 2 for body in bodies)  # the base has no shots here
    assert len({body["cache_salt"] for body in bodies}) == 1


def test_every_request_and_every_round_is_scored_and_its_times_are_kept(line: SpeedLine) -> None:
    model = line.small.candidate()
    layer, _ = measured(line, model)
    times = times_of(line, layer)
    assert (times.baseline, times.setup, len(times.items)) == ("base", {"machine": "made up"}, 19)
    for name, result in results_of(line, layer).items():
        assert result.artifact == (model.base if name.endswith("base") else model.weights)
        requests, rounds = result.items[:16], result.items[16:]
        assert [each.item for each in requests] == [f"i{n}" for n in range(3, 19)]
        assert [each.cluster for each in requests[::4]] == [each.item for each in rounds]
        assert all({*METRICS, *BEHIND} == {*each.scores, "behind_throughput"} for each in requests)
        assert [each.item for each in requests if each.scores["failed"]] == ["i7"]
        assert set(requests[4].scores.values()) == {1.0}
        assert all(sum(each.scores.values()) == 0 for each in (*requests[:4], *requests[5:], *rounds))


def test_an_unchanged_artifact_is_not_measured_again_unless_it_is_asked_for(line: SpeedLine) -> None:
    model, other = line.small.candidate(), line.small.candidate(1)
    first, _ = measured(line, model)
    count = len(line.server.asked)
    assert measured(line, model) == (first, True)
    assert measured(line, model, champion=model) == (first, True)  # it is no rival of itself
    assert len(line.server.asked) == count

    again, hit = measured(line, model, fresh=True)
    assert (hit, len(line.server.asked)) == (False, 2 * count)
    assert times_of(line, again) != times_of(line, first)
    assert measured(line, model) == (again, True)
    assert not measured(line, other)[1]
    assert len(line.server.asked) == 3 * count


def test_other_bounds_score_the_kept_times_anew_and_another_load_or_machine_measures(line: SpeedLine) -> None:
    model = line.small.candidate()
    first, _ = measured(line, model)
    count = len(line.server.asked)

    line.write(first_token_ms=1e-6)
    strict, hit = measured(line, model)
    assert (hit, len(line.server.asked)) == (True, count)
    assert times_of(line, strict) == times_of(line, first)
    slow = [each.scores.get("slow_first_token") for each in results_of(line, strict)["small-speed/base"].items]
    assert slow == [1.0] * 16 + [None] * 4

    line.write(concurrency=2)
    assert not measured(line, model)[1]
    line.write()
    line.vllm.machine = "another"
    assert not measured(line, model)[1]


def test_the_champion_is_the_baseline_where_there_is_one(line: SpeedLine) -> None:
    layer, _ = measured(line, line.small.candidate(1), line.small.candidate(2))
    assert times_of(line, layer).baseline == "champion"
    assert set(layer.results) == {f"small-speed/{who}" for who in ("base", "champion", "candidate")}


def test_the_gate_bounds_it_and_the_verdict_can_be_computed_again(line: SpeedLine) -> None:
    model = line.small.candidate()
    line.gate_by(CEILING, CEILING | {"name": "sooner", "metric": "behind_first_token"})
    layer, _ = measured(line, model)
    verdict = decided(line, model, layer)
    outcomes = {each.name: each.outcome for each in verdict.criteria}
    assert outcomes == {"better": "pass", "whole": "inconclusive", "sooner": "inconclusive"}  # four rounds tell little
    store = line.small.parts.store
    results = {name: store.get_manifest(digest, EvalResult) for name, digest in verdict.results.items()}
    again = evaluate_policy(store.get_manifest(verdict.policy, GatePolicy), results)
    assert again == (verdict.criteria, verdict.decision, verdict.reason)

    line.gate_by(CEILING | {"margin": 0.7})
    assert decided(line, model, layer).decision == "promote"


def test_without_a_criterion_it_is_told_and_decides_nothing(line: SpeedLine) -> None:
    model = line.small.candidate()
    verdict = decided(line, model, measured(line, model)[0])
    assert (verdict.decision, {each.suite for each in verdict.criteria}) == ("promote", {"small-suite"})
    assert "small-speed/candidate" in verdict.results


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "floor"},
        {"kind": "non-inferiority", "against": "base"},
        {"metric": "exact"},
    ],
)
def test_a_criterion_that_wants_more_of_what_is_slow_is_refused(line: SpeedLine, wrong: dict[str, Any]) -> None:
    model = line.small.candidate()
    layer, _ = measured(line, model)
    line.gate_by(CEILING | wrong)
    with pytest.raises(Refused, match="of small-speed less is better"):
        decided(line, model, layer)


def test_a_layer_that_is_missing_or_of_another_test_is_refused(line: SpeedLine) -> None:
    model = line.small.candidate()
    layer, _ = measured(line, model)
    with pytest.raises(Refused, match="evaluate layer serving"):
        decided(line, model, layer.model_copy(update={"results": {}}))
    line.write(times=2)
    with pytest.raises(Refused, match="another edition"):
        decided(line, model, layer)


def test_a_reviewer_is_shown_times_beside_the_baselines_and_the_card_is_not_told(line: SpeedLine) -> None:
    model = line.small.candidate()
    layer, _ = measured(line, model)
    results, policy = results_of(line, layer), GatePolicy(name="p", resamples=1000, criteria=(CEILING,))
    (table,) = tables(line.small.parts.store, policy, results)
    assert (table.machine, table.requests, table.rounds) == ("made up", 16, 4)
    assert (table.subjects, table.baseline) == (("base", "candidate"), "base")
    told = {row.figure: row for row in table.rows}
    assert told["requests without a whole answer"].subjects[0].startswith("0.062 [")
    assert told["first token, ms, 95th percentile"].subjects[1].endswith("unbounded]")
    assert told["first token, ms, median"].times
    assert measures(policy, results) == []

    line.small.parts.store.delete(str(results["small-speed/candidate"].samples))
    (table,) = tables(line.small.parts.store, policy, results)
    assert (table.erased, table.rows) == (True, ())


def test_a_server_that_counts_no_tokens_gives_no_results(tmp_path: Path) -> None:
    with streaming(lambda text: Pace(usage=False)) as server:
        line = SpeedLine(tmp_path, server)
        with pytest.raises(Refused, match="counts no tokens"):
            measured(line, line.small.candidate())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"requests": 22}, r"speed\.yaml, field requests: 3 to warm up and 22 to time are more than the 24 questions"),
        ({"times": 1}, r"speed\.yaml, field times: Input should be greater than 1"),
        ({"colour": "blue"}, r"speed\.yaml, field colour"),
    ],
)
def test_a_test_that_does_not_fit_is_told(line: SpeedLine, changes: dict[str, Any], reason: str) -> None:
    line.write(**changes)
    with pytest.raises(BadInput, match=reason):
        measured(line, line.small.candidate())


def test_the_pages_show_the_test_that_ships_and_a_policy_that_fits_it() -> None:
    test = load_speed_test(ROOT / "evals" / "speed" / "billing-speed.yaml")
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "suites.md").read_text(), re.DOTALL)
    assert SpeedTest.model_validate(yaml.safe_load(next(block for block in blocks if "requests:" in block))) == test

    lines = (ROOT / "docs" / "gate.md").read_text().splitlines()
    shown = "\n".join(line.strip() for line in lines if "suite: billing-speed" in line)
    policy = GatePolicy(name="shown", criteria=yaml.safe_load(shown))
    asking = speed_of(load_product("billing-assistant").model_copy(update={"speed": "billing-speed"}))
    assert asking is not None
    asking.check_policy(policy)
    assert len(policy.criteria) == 4
    assert len(asking.items()) == 24 + 6
