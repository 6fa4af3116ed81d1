"""What was answered once is not asked again: not for a new item, not for a changed scorer, not after a crash."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_contracts.digests import Digest, sha256_bytes
from data_contracts.errors import Refused, Unavailable
from data_contracts.verdicts import EvalResult
from evals import run, scorers
from evals.decoding import Decoding
from evals.kept import Respondent
from evals.protocols import Hears, Kept, Question
from evals.run import Way, evaluate
from evals.suite import Suite, load_suite
from pipelines.recipes.product import ROOT
from resources.answer_store import SqliteAnswers
from resources.artifact_store import FsspecArtifactStore
from resources.tenant_keys import TenantKeys

ARTIFACT = sha256_bytes(b"artifact")
ANSWER = '{"tool": "none", "reply": "yes"}'
WAY = Way("{{ messages }}", Decoding(max_tokens=8))

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # ragas imports deprecated parts of others


class Model:
    """Answers everything alike, and counts; breaks down at the ``breaks``-th question."""

    def __init__(self, breaks: int = 0) -> None:
        self.asked: list[str] = []
        self.breaks = breaks

    def engine(self) -> str:
        return "fake 1"

    def chat(self, questions: Mapping[Digest, Question], answered: Callable[[Digest, str], None]) -> None:
        for key, question in questions.items():
            self.asked.append(question["messages"][-1]["content"])
            if len(self.asked) == self.breaks:
                raise Unavailable("the endpoint broke down")
            answered(key, ANSWER)

    def lm(self) -> Any:
        raise AssertionError("no suite here is lm-eval's")


class Home:
    def __init__(self, folder: Path) -> None:
        self.store = FsspecArtifactStore(str(folder / "store"), folder / "cache", TenantKeys(folder / "vault"))
        self.answers = SqliteAnswers(folder / "answers.sqlite")


def write_suite(folder: Path, items: int, *metrics: str, first: str = "question 0") -> Suite:
    rows = [
        {"id": f"i{n}", "cluster": f"c{n // 2}", "text": f"question {n}", "tools": ["get_invoice"], "expect": "reply"}
        for n in range(items)
    ]
    rows[0]["text"] = first
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = metrics or ("must_not_call",)
    fields = {"description": "d", "unit": "u", "cluster": "c", "direction": "higher-is-better", "licence": "CC0-1.0"}
    fields |= {"name": "small", "layer": "safety", "origin": "hand-written", "data": str(folder / "items.jsonl")}
    (folder / "suite.yaml").write_text(yaml.safe_dump(fields | {"metrics": [*metrics], "headline": metrics[0]}))
    return load_suite(folder / "suite.yaml")


def ask(
    home: Home, suite: Suite, model: Model, way: Way = WAY, lock: str = "1", artifact: Digest = ARTIFACT
) -> tuple[EvalResult, bool]:
    who = Respondent(artifact, ARTIFACT, {"server": lock}, lambda: model)
    return evaluate(home, suite, who, way, lambda done, total: None)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_an_unchanged_suite_is_remembered_whole(home, tmp_path):
    suite = write_suite(tmp_path, 6)
    first, hit = ask(home, suite, Model())
    assert not hit
    again = Model()
    assert ask(home, suite, again) == (first, True)
    assert again.asked == []


def test_an_item_that_joins_is_the_only_one_asked(home, tmp_path):
    ask(home, write_suite(tmp_path, 6), Model())
    model = Model()
    result, hit = ask(home, write_suite(tmp_path, 7), model)
    assert not hit
    assert model.asked == ["question 6"]
    assert [each.item for each in result.items] == [f"i{n}" for n in range(7)]


def test_an_item_that_changes_is_asked_again(home, tmp_path):
    ask(home, write_suite(tmp_path, 6), Model())
    model = Model()
    ask(home, write_suite(tmp_path, 6, first="another question"), model)
    assert model.asked == ["another question"]


def test_a_changed_scorer_asks_nothing(home, tmp_path, monkeypatch):
    suite = write_suite(tmp_path, 6)
    before, _ = ask(home, suite, Model())
    monkeypatch.setitem(scorers.SCORERS, "must_not_call", lambda item, text: 0.0)
    code = run.code_version
    monkeypatch.setattr(run, "code_version", lambda *names: code(*names, "evals.plots"))  # as if its bytes had changed
    model = Model()
    after, hit = ask(home, suite, model)
    assert (model.asked, hit) == ([], False)
    assert {each.scores["must_not_call"] for each in before.items} == {1.0}
    assert {each.scores["must_not_call"] for each in after.items} == {0.0}
    assert after.engine == before.engine == "fake 1"


def test_a_metric_that_joins_asks_nothing(home, tmp_path):
    ask(home, write_suite(tmp_path, 6), Model())
    model = Model()
    result, _ = ask(home, write_suite(tmp_path, 6, "must_not_call", "json_valid"), model)
    assert model.asked == []
    assert {each.scores["json_valid"] for each in result.items} == {1.0}


@pytest.mark.parametrize(
    "other",
    [
        {"way": WAY._replace(template="{{ messages }} ")},
        {"way": WAY._replace(decoding=Decoding(max_tokens=9))},
        {"way": WAY._replace(decoding=Decoding(max_tokens=8, free=True))},
        {"lock": "2"},
        {"artifact": sha256_bytes(b"another artifact")},
    ],
)
def test_whatever_decides_an_answer_is_part_of_its_name(home, tmp_path, other):
    suite = write_suite(tmp_path, 3)
    ask(home, suite, Model())
    model = Model()
    ask(home, suite, model, **other)
    assert len(model.asked) == 3


def test_a_suite_that_is_asked_freely_is_held_by_no_schema(home):
    asked: list[set[bool]] = []

    class Free(Model):
        def chat(self, questions: Mapping[Digest, Question], answered: Callable[[Digest, str], None]) -> None:
            asked.append({"structured_outputs" in question for question in questions.values()})
            super().chat(questions, answered)

    for name in ("billing-tools", "billing-format"):
        suite = load_suite(ROOT / "evals" / "suites" / f"{name}.yaml")
        who = Respondent(ARTIFACT, ARTIFACT, None, Free)
        evaluate(home, suite, who, WAY._replace(limit=3), lambda done, total: None)
    assert asked == [{True}, {False}]


def test_what_was_answered_before_an_endpoint_failed_is_not_asked_again(home, tmp_path):
    suite = write_suite(tmp_path, 6)
    with pytest.raises(Unavailable, match="broke down"):
        ask(home, suite, Model(breaks=4))
    model = Model()
    result, _ = ask(home, suite, model)
    assert len(model.asked) == 3
    assert len(result.items) == 6


def test_a_limit_takes_the_first_items_and_the_rest_is_asked_later(home, tmp_path):
    suite = write_suite(tmp_path, 6)
    model = Model()
    few, _ = ask(home, suite, model, WAY._replace(limit=2))
    assert [each.item for each in few.items] == ["i0", "i1"]
    whole, _ = ask(home, suite, model)
    assert len(whole.items) == len(model.asked) == 6


def test_fresh_asks_again_and_replaces(home, tmp_path):
    suite = write_suite(tmp_path, 3)
    ask(home, suite, Model())
    model = Model()
    ask(home, suite, model, WAY._replace(fresh=True))
    assert len(model.asked) == 3
    assert ask(home, suite, model)[1]
    assert home.answers.held([ARTIFACT]) == 3


class Sure(Model):
    """Tells how sure it is, but of every third answer."""

    def chat(self, questions: Mapping[Digest, Question], answered: Hears) -> None:
        for number, key in enumerate(questions):
            self.asked.append(key)
            answered(key, ANSWER, None if number % 3 == 2 else -0.5 * number)


def test_how_sure_a_model_was_is_kept_with_its_answer_where_it_told(home, tmp_path):
    result, _ = ask(home, write_suite(tmp_path, 3), Sure())
    assert result.confidence == {"i0": 0.0, "i1": -0.5}
    assert home.store.get_json(result.samples) == dict.fromkeys(("i0", "i1", "i2"), ANSWER)
    model = Sure()
    again, _ = ask(home, write_suite(tmp_path, 3, "must_not_call", "json_valid"), model)
    assert (model.asked, again.confidence) == ([], result.confidence)


def test_answers_that_were_kept_as_texts_alone_are_still_good(home, tmp_path):
    suite = write_suite(tmp_path, 3)
    without, _ = ask(home, suite, Model())
    assert without.confidence == {}
    assert "confidence" not in without.payload(), "results of before keep their digests"
    model = Sure()
    more, _ = ask(home, write_suite(tmp_path, 4), model)
    assert len(model.asked) == 1
    assert more.confidence == {"i3": 0.0}


def test_two_items_with_one_question_are_asked_once(home, tmp_path):
    suite = write_suite(tmp_path, 4, first="question 1")
    model = Model()
    result, _ = ask(home, suite, model)
    assert len(model.asked) == 3
    assert len(result.items) == 4


def test_a_kill_in_mid_suite_loses_only_what_is_in_flight(home, tmp_path):
    suite = write_suite(tmp_path, 6)
    killed = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.unit.test_kept", str(tmp_path)], cwd=ROOT, env=os.environ
    )
    assert killed.returncode == -signal.SIGKILL
    model = Model()
    ask(home, suite, model)
    assert len(model.asked) == 3


def test_texts_lie_in_the_samples_and_among_the_answers_alone(home, tmp_path):
    result, _ = ask(home, write_suite(tmp_path, 3), Model())
    assert ANSWER[10:] not in result.model_dump_json()
    home.store.delete(result.samples)
    home.answers.forget([ARTIFACT])
    assert home.answers.held([ARTIFACT]) == 0
    left = [path for path in tmp_path.rglob("*") if path.is_file() and b"yes" in path.read_bytes()]
    assert left == []


def test_an_evaluation_under_way_brings_nothing_back(home, tmp_path):
    suite = write_suite(tmp_path, 3)
    ask(home, suite, Model(), WAY._replace(limit=1))
    home.answers.forget([ARTIFACT])
    with pytest.raises(Refused, match="revoked by an erasure"):
        ask(home, suite, Model())
    assert home.answers.held([ARTIFACT]) == 0


def test_forgetting_leaves_other_artifacts_alone(home):
    other = sha256_bytes(b"other")
    home.answers.put(ARTIFACT, {sha256_bytes(b"1"): Kept("mine", "e")})
    home.answers.put(other, {sha256_bytes(b"2"): Kept([-1.25, True], "e")})
    home.answers.forget([ARTIFACT])
    assert home.answers.get([sha256_bytes(b"1"), sha256_bytes(b"2")]) == {sha256_bytes(b"2"): Kept([-1.25, True], "e")}


class Killing(Model):
    def chat(self, questions: Mapping[Digest, Question], answered: Callable[[Digest, str], None]) -> None:
        for number, key in enumerate(questions):
            if number == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            answered(key, ANSWER)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    ask(Home(place), load_suite(place / "suite.yaml"), Killing())
