"""The RAG layer through ragas' own client and a real HTTP server: its scores, and what counts as a failure."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data_contracts.errors import Refused, Unavailable
from evals import ragas_metrics
from evals.calibration import Sitting, calibrate, keep, read_set, seat
from evals.judge import Judge, judge_all, load_judge, load_policy
from evals.rag import RagSuite, load_rag, question, score_rag
from pipelines.recipes.product import ROOT
from resources.artifact_store import FsspecArtifactStore
from resources.openai_endpoint import OpenAiEndpoint
from tests.support.judging import faithful_rows, ragas_oracle
from tests.support.ports import free_ports
from tests.support.teacher import Body, Reply, teaching

SUITE = load_rag(ROOT / "evals/passages/billing-help.yaml")
ITEMS = SUITE.items()
RULE = load_policy("default")
JUDGES = {metric: Judge(load_judge(f"ragas-{metric.replace('_', '-')}"), "m") for metric in ragas_metrics.JUDGED}
FREE = SUITE.model_copy(update={"metrics": ragas_metrics.JUDGE_FREE, "headline": "chrf"})


class Letters:
    """Texts by how often each letter comes: equal texts are one, different ones less."""

    def embed(self, texts: Sequence[str]) -> Any:
        import numpy as np

        counts = np.array([[text.lower().count(chr(97 + n)) for n in range(26)] for text in texts], dtype=float)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def endpoint(url: str, **more: Any) -> OpenAiEndpoint:
    return OpenAiEndpoint(url, retries=1, patient=True, **({"timeout": 10.0} | more))


def sittings(store: FsspecArtifactStore, url: str, **more: Any) -> dict[str, Sitting]:
    return {metric: seat(store, judge, endpoint(url, **more), None, RULE) for metric, judge in JUDGES.items()}


@pytest.fixture
def store(tmp_path: Path) -> FsspecArtifactStore:
    return FsspecArtifactStore(str(tmp_path / "store"), tmp_path / "cache")


def mean(scores: Any, metric: str) -> float:
    return math.fsum(item.scores[metric] for item in scores.items) / len(scores.items)


def test_every_question_has_a_useful_passage_and_is_asked_with_all_of_them():
    assert len({item.cluster for item in ITEMS}) >= 8
    for item in ITEMS:
        assert all(passage in question(item) for passage in item.contexts)
        assert item.question in question(item)


def test_judge_free_scores_tell_a_reference_from_nonsense_and_ask_nobody():
    right = score_rag(FREE, {item.id: item.reference for item in ITEMS}, {}, Letters())
    wrong = score_rag(FREE, {item.id: "Zebras jump quietly." for item in ITEMS}, {}, Letters())
    empty = score_rag(FREE, {item.id: " " for item in ITEMS}, {}, Letters())
    assert right.judged == {}
    for metric in FREE.metrics:
        assert mean(right, metric) == pytest.approx(1)
        assert mean(empty, metric) == 0 < 1 - mean(wrong, metric)
        assert mean(wrong, metric) < 0.7


def test_all_metrics_run_through_a_server_and_an_uncalibrated_judge_is_untrusted(store):
    """Answers that repeat the passages are faithful, those that add to them are not."""
    repeated = {item.id: " ".join(item.contexts) for item in ITEMS}
    invented = {item.id: f"{item.contexts[0]} Zebras pay nothing." for item in ITEMS}
    with teaching(ragas_oracle) as server:
        good = score_rag(SUITE, repeated, sittings(store, server.url), Letters())
        bad = score_rag(SUITE, invented, sittings(store, server.url), Letters())
    assert set(good.items[0].scores) == set(SUITE.metrics)
    assert all(0 <= score <= 1 for item in good.items for score in item.scores.values())
    assert (mean(good, "faithfulness"), mean(bad, "faithfulness")) == (1, 0)
    assert mean(good, "context_recall") > 0.5
    assert mean(good, "context_precision") == mean(bad, "context_precision") > 0.5
    assert mean(good, "answer_relevancy") > 0.5
    for judged in good.judged.values():
        assert (judged.failed, judged.calibration) == (0, None)
        assert "is not calibrated" in judged.untrusted


def test_nan_time_outs_errors_and_other_forms_are_failures_and_score_nothing(store, caplog):
    faithful = SUITE.model_copy(update={"metrics": ("faithfulness",)})
    ways = [Reply('{"statements": []}'), Reply(delay=5), Reply(status=500), Reply("no JSON"), Reply("")]

    def reply(body: Body, before: int) -> Reply:
        asked = next(n for n, item in enumerate(ITEMS) if f"(item {item.id})" in json.dumps(body))
        return ways[asked] if asked < len(ways) else ragas_oracle(body)

    answers = {item.id: f"{item.contexts[0]} (item {item.id})" for item in ITEMS}
    answers[ITEMS[-1].id] = ""
    judge = JUDGES["faithfulness"]
    with teaching(reply) as server:
        scores = score_rag(faithful, answers, sittings(store, server.url, timeout=1), Letters())
        fields = {"question": "q", "response": answers[ITEMS[0].id], "context": "c"}
        (nan,) = judge_all(judge, endpoint(server.url), {"nan": fields}).values()
    assert scores.judged["faithfulness"].failed == len(ways)
    assert [item.scores["faithfulness"] for item in scores.items[: len(ways)]] == [0] * len(ways)
    assert scores.items[-1].scores["faithfulness"] == 0
    assert "no JSON" not in caplog.text
    assert (nan.word, nan.failures) == ("failed", ("the score is no number from 0 to 1",))


def test_a_made_up_verdict_is_a_failure():
    fields = {"question": "q", "reference": "r", "context": ("one", "two")}
    with teaching(lambda body, before: Reply('{"reason": "so", "verdict": -3}')) as server:
        (verdict,) = judge_all(JUDGES["context_precision"], endpoint(server.url), {"i": fields}).values()
    assert (verdict.word, verdict.score) == ("failed", 0)


def test_a_ragas_metric_is_calibrated_as_it_is_used(store):
    rows = [row | {"response": row["response"].replace("They sell", "The store sells")} for row in faithful_rows(60)]
    judge = JUDGES["faithfulness"]
    labelled = read_set(enumerate(rows), judge.file.set, "set.jsonl")
    with teaching(ragas_oracle) as server:
        found = calibrate(judge, endpoint(server.url), labelled)
        keep(store, found)
        sitting = seat(store, judge, endpoint(server.url), labelled.digest, RULE)
    assert (found.kappa, found.counts, sitting.untrusted) == (1, {"no": {"no": 30}, "yes": {"yes": 30}}, "")


def test_a_server_that_is_not_there_is_an_error_and_so_are_missing_answers(store):
    faithful = SUITE.model_copy(update={"metrics": ("faithfulness",)})
    answers = {item.id: "x" for item in ITEMS}
    nowhere = sittings(store, f"http://127.0.0.1:{free_ports(1)[0]}/v1")
    with pytest.raises(Unavailable, match="cannot be reached"):
        score_rag(faithful, answers, nowhere, Letters())
    with pytest.raises(Refused, match="2 items of suite billing-help have no answer"):
        score_rag(faithful, dict(list(answers.items())[2:]), nowhere, Letters())
    with pytest.raises(Refused, match="does not score faithfulness"):
        score_rag(faithful, answers, {"faithfulness": nowhere["context_recall"]}, Letters())


def test_a_suite_that_measures_something_unknown_is_refused():
    with pytest.raises(ValueError, match="bleurt"):
        RagSuite.model_validate(SUITE.model_dump() | {"metrics": ["bleurt"]})
