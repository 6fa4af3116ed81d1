"""Answers from passages, scored by ragas: without a judge, and by one behind a real HTTP server, which may fail."""

import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from data_contracts.digests import sha256_bytes
from data_contracts.errors import BadInput, Unavailable
from evals.calibration import calibrate, keep, seat
from evals.judge import Judge, RagasJudge, judge_all, load_judge, load_policy
from evals.judging import JUDGES, JudgeScores, judge_answers, sittings
from evals.passages import PassageItem
from evals.protocols import JudgeModel
from evals.ragas_metrics import JUDGE_FREE, JUDGED
from evals.scorers import score
from evals.suite import load_suite, read_items
from pipelines.recipes.product import ROOT
from resources.answer_store import SqliteAnswers
from tests.support.judging import Letters, endpoint, faithful_rows, labelled, open_store, prompt_of, ragas_oracle
from tests.support.ports import free_ports
from tests.support.questions import Calm
from tests.support.teacher import Body, Reply, teaching

FILE = ROOT / "evals/suites/billing-help.yaml"
SUITE = load_suite(FILE)
ALL = read_items(SUITE.data_path(), PassageItem)
ITEMS = ALL[:6]
RULE = load_policy("default")
FAITHFUL = Judge(load_judge(JUDGES["faithfulness"]), "m")
ARTIFACT = sha256_bytes(b"who answers")


class Home(Calm):
    """What an evaluation needs; ``judge`` is put in by each test."""

    judge: JudgeModel | None = None

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.store, self.answers = open_store(folder), SqliteAnswers(folder / "answers.sqlite")
        self.embedder = Letters()

    def judged(self, url: str, texts: Mapping[str, str], *metrics: str, timeout: float = 10) -> JudgeScores:
        self.judge = JudgeModel(endpoint(url, timeout=timeout), "m", "", RULE)
        judges = sittings(self, SUITE.model_copy(update={"metrics": metrics or SUITE.metrics}))
        return judge_answers(self, judges, ITEMS, texts, ARTIFACT, lambda *_: None)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def mean(found: JudgeScores, metric: str) -> float:
    return math.fsum(scores[metric] for scores in found.scores.values()) / len(found.scores)


def test_every_question_has_a_useful_passage_and_is_asked_with_all_of_them():
    for item in ALL:
        (message,) = item.turns()
        assert all(passage in message["content"] for passage in item.contexts)
        assert message["content"].endswith(f"Question: {item.text}")


def test_judge_free_scores_tell_a_reference_from_nonsense(home):
    for item in ITEMS:
        right, wrong, empty = (score(item, text, JUDGE_FREE, home) for text in (item.reference, "Zebras jump.", " "))
        for metric in JUDGE_FREE:
            assert right[metric] == pytest.approx(1)
            assert wrong[metric] < 0.8
            assert empty[metric] == 0


def test_every_judged_metric_has_the_judge_that_scores_it():
    files = {metric: load_judge(JUDGES[metric]) for metric in JUDGED}
    assert {metric: file.metric for metric, file in files.items() if isinstance(file, RagasJudge)} == dict(
        zip(JUDGED, JUDGED, strict=True)
    )


def test_all_metrics_run_through_a_server_and_an_uncalibrated_judge_is_untrusted(home):
    """Answers that repeat the passages are faithful, those that add to them are not. Of the second ones it is not asked
    again what does not hang on the answer."""
    repeated = {item.id: " ".join(item.contexts) for item in ITEMS}
    invented = {item.id: f"{item.contexts[0]} Zebras pay nothing." for item in ITEMS}
    with teaching(ragas_oracle) as server:
        good = home.judged(server.url, repeated)
        first = server.seen.total()
        bad = home.judged(server.url, invented)
        second = server.seen.total() - first
        again = home.judged(server.url, repeated)
        assert server.seen.total() == first + second
    assert second < first
    assert again == good
    assert set(good.scores[ITEMS[0].id]) == set(JUDGED)
    assert all(0 <= value <= 1 for scores in good.scores.values() for value in scores.values())
    assert (mean(good, "faithfulness"), mean(bad, "faithfulness")) == (1, 0)
    assert mean(good, "context_recall") > 0.5
    assert mean(good, "context_precision") == mean(bad, "context_precision") > 0.5
    assert mean(good, "answer_relevancy") > 0.5
    for judged in good.judged.values():
        assert (judged.failed, judged.calibration) == (0, None)
        assert "is not calibrated" in judged.untrusted


def test_nan_time_outs_errors_and_other_forms_are_failures_score_nothing_and_are_not_kept(home, caplog):
    ways = [Reply('{"statements": []}'), Reply(delay=10), Reply(status=500), Reply("no JSON"), Reply("")]

    def reply(body: Body, before: int) -> Reply:
        asked = next(n for n, item in enumerate(ITEMS) if item.contexts[0] in prompt_of(body))
        return ways[asked] if asked < len(ways) else ragas_oracle(body)

    answers = {item.id: item.contexts[0] for item in ITEMS}
    with teaching(reply) as server:
        fields = {"question": "q", "response": answers[ITEMS[0].id], "context": "c"}
        # This loads the clients, which takes time.
        (nan,) = judge_all(FAITHFUL, endpoint(server.url), {"nan": fields}).values()
        found = home.judged(server.url, answers, "faithfulness", timeout=3)
    assert found.judged["faithfulness"].failed == len(ways) == len(ITEMS) - 1
    assert [found.scores[item.id]["faithfulness"] for item in ITEMS] == [0] * len(ways) + [1]
    assert "no JSON" not in caplog.text
    assert (nan.word, nan.failures) == ("failed", ("the score is no number from 0 to 1",))
    with teaching(ragas_oracle) as server:
        mended = home.judged(server.url, answers, "faithfulness")
        assert not any(ITEMS[-1].contexts[0] in prompt_of(body) for body in server.bodies)
    assert (mended.judged["faithfulness"].failed, mean(mended, "faithfulness")) == (0, 1)


def test_an_empty_answer_scores_nothing_and_nobody_is_asked(home):
    with teaching(ragas_oracle) as server:
        found = home.judged(server.url, {item.id: " " for item in ITEMS}, "faithfulness", "answer_relevancy")
        assert not server.seen
    assert {value for scores in found.scores.values() for value in scores.values()} == {0}
    assert [judged.failed for judged in found.judged.values()] == [0, 0]


def test_a_made_up_verdict_is_a_failure():
    judge = Judge(load_judge(JUDGES["context_precision"]), "m")
    fields = {"question": "q", "reference": "r", "context": ("one", "two")}
    with teaching(lambda body, before: Reply('{"reason": "so", "verdict": -3}')) as server:
        (verdict,) = judge_all(judge, endpoint(server.url), {"i": fields}).values()
    assert (verdict.word, verdict.score) == ("failed", 0)


def test_a_ragas_metric_is_calibrated_as_it_is_used(home):
    rows = [row | {"response": row["response"].replace("They sell", "The store sells")} for row in faithful_rows(50)]
    with teaching(ragas_oracle) as server:
        found = calibrate(FAITHFUL, endpoint(server.url), labelled(rows, FAITHFUL))
        keep(home.store, found)
        sitting = seat(home.store, FAITHFUL, endpoint(server.url), RULE)
    assert (found.kappa, found.counts, sitting.untrusted) == (1, {"no": {"no": 25}, "yes": {"yes": 25}}, "")


def test_a_server_that_is_not_there_is_an_error_and_nothing_is_kept(home):
    with pytest.raises(Unavailable, match="cannot be reached"):
        home.judged(f"http://127.0.0.1:{free_ports(1)[0]}/v1", {item.id: "x" for item in ITEMS}, "faithfulness")
    assert home.answers.held([ARTIFACT]) == 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("metrics: [rouge_l", "metrics: [bleurt", "field metrics: nothing measures bleurt: use answer_relevancy, chrf"),
        ("asks: passages", "asks: questions", "field metrics: nothing measures rouge_l"),
        ("asks: passages", "asks: passages\ntransforms: [base64]", "set `asks: questions`"),
    ],
)
def test_a_suite_of_passages_that_does_not_fit_is_one_error(tmp_path, old, new, said):
    (tmp_path / "suite.yaml").write_text(FILE.read_text().replace(old, new, 1))
    with pytest.raises(BadInput, match=said):
        load_suite(tmp_path / "suite.yaml")
