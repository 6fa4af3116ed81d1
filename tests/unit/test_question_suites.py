"""Suites of questions on the way that every evaluation takes: asked, kept, scored."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from data_contracts.digests import Digest, sha256_bytes
from evals.decoding import Decoding
from evals.kept import Respondent
from evals.protocols import Question
from evals.question import QuestionItem
from evals.run import Way, evaluate
from evals.suite import Suite, load_suite
from pipelines.recipes.product import ROOT
from resources.answer_store import SqliteAnswers
from resources.artifact_store import FsspecArtifactStore
from resources.tenant_keys import TenantKeys
from tests.support.questions import Calm, right

SUITES = [load_suite(path) for path in sorted((ROOT / "evals" / "suites").glob("*.yaml"))]
QUESTIONS = [suite for suite in SUITES if suite.asks == "questions" and suite.name != "instructions"]
WAY = Way("{{ messages }}", Decoding(max_tokens=8), 8)
ANY = sha256_bytes(b"artifact")


class Model:
    """Answers what it is told to by the words of the question."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        self.answers, self.bodies = answers, list[Question]()

    def engine(self) -> str:
        return "fake 1"

    def chat(self, questions: Mapping[Digest, Question], answered: Callable[[Digest, str], None]) -> None:
        for key, question in questions.items():
            self.bodies.append(question)
            answered(key, self.answers[question["messages"][-1]["content"]])

    def lm(self) -> Any:
        raise AssertionError("no suite here is lm-eval's")


class Home(Calm):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.store = FsspecArtifactStore(str(folder / "store"), folder / "cache", TenantKeys(folder / "vault"))
        self.answers = SqliteAnswers(folder / "answers.sqlite")


@pytest.mark.parametrize("suite", QUESTIONS, ids=lambda suite: suite.name)
def test_a_shipped_suite_of_questions_is_evaluated_like_any_other(suite: Suite, tmp_path: Path) -> None:
    items = [item for item in suite.items() if isinstance(item, QuestionItem)][:8]
    model = Model({item.text: right(item) for item in items})
    who = Respondent(ANY, ANY, "fake", lambda: model)
    result, hit = evaluate(Home(tmp_path), suite, who, WAY, lambda *_: None)

    assert not hit
    assert [each.item for each in result.items] == [item.id for item in items]
    assert {value for each in result.items for value in each.scores.values()} == {1.0}
    assert all(each.scores.keys() <= set(suite.metrics) for each in result.items)
    offering = [body for body in model.bodies if "You can call these functions" in body["messages"][0]["content"]]
    assert len(offering) == (8 if items[0].functions else 0)
    assert not any("structured_outputs" in body or "chat_template_kwargs" in body for body in model.bodies)


@pytest.mark.parametrize("suite", QUESTIONS, ids=lambda suite: suite.name)
def test_another_classifier_makes_another_result_where_one_is_asked(suite: Suite, tmp_path: Path) -> None:
    items = [item for item in suite.items() if isinstance(item, QuestionItem)][:8]
    who = Respondent(ANY, ANY, "fake", lambda: Model({item.text: right(item) for item in items}))
    home = Home(tmp_path)
    evaluate(home, suite, who, WAY, lambda *_: None)
    assert evaluate(home, suite, who, WAY, lambda *_: None)[1]
    for detector in (home.pii, home.toxicity):
        detector.identity = "calm 2"
    asks = bool({"no_pii", "no_toxicity"} & set(suite.metrics))
    assert evaluate(home, suite, who, WAY, lambda *_: None)[1] is not asks
