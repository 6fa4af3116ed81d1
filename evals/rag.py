"""The RAG layer: answers from given passages, scored by ragas' judge-free metrics and by those that ask a judge.

What a judge scores carries who judged it (`Judged`); without a calibrated judge it is shown as untrusted, and no gate
passes on it. An item on which the judge fails scores 0 and is counted.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import yaml
from pydantic import Field, ValidationError, model_validator

from data_contracts.digests import Digest, sha256_file, sha256_json
from data_contracts.errors import BadInput, Refused
from data_contracts.frozen import Frozen
from data_contracts.verdicts import ItemScore, Judged
from evals import ragas_metrics
from evals.calibration import Sitting
from evals.judge import FAILED, Fields, RagasJudge, judge_all
from evals.protocols import Embeds
from pipelines.recipes.product import ROOT

METRICS = (*ragas_metrics.JUDGE_FREE, *ragas_metrics.JUDGED)
PROMPT = "Answer the question from the passages, in one or two sentences. If they do not say it, say so."


class RagItem(Frozen):
    """A question, the passages found for it, best first, and what a good answer says."""

    id: str
    cluster: str
    question: str = Field(min_length=1)
    contexts: tuple[str, ...] = Field(min_length=1)
    reference: str = Field(min_length=1)


class RagSuite(Frozen):
    name: str = Field(pattern=r"^[a-z][a-z0-9-]{1,62}$")
    layer: Literal["rag"]
    description: str
    unit: str
    cluster: str
    direction: Literal["higher-is-better"]
    licence: str
    origin: Literal["hand-written"]
    data: str
    metrics: tuple[str, ...] = Field(min_length=1)
    headline: str

    @model_validator(mode="after")
    def _is_measured(self) -> "RagSuite":
        if strange := sorted(set(self.metrics) - set(METRICS)):
            raise ValueError(f"metrics: {', '.join(strange)} is none of {', '.join(METRICS)}")
        if self.headline not in self.metrics:
            raise ValueError(f"the headline {self.headline} is none of the metrics")
        return self

    def data_path(self) -> Path:
        return ROOT / self.data

    def items(self) -> tuple[RagItem, ...]:
        """The items in file order. Raises `BadInput` for a row that does not fit and for an id that comes twice."""
        items: dict[str, RagItem] = {}
        path = self.data_path()
        for number, line in enumerate(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"), start=1):
            try:
                item = RagItem.model_validate_json(line)
            except ValidationError as error:
                raise BadInput(f"{path}, line {number}: {error}") from error
            if item.id in items:
                raise BadInput(f"{path}, line {number}: the id {item.id} comes twice")
            items[item.id] = item
        return tuple(items.values())

    def content_digest(self) -> Digest:
        """Names the question paper: this file's fields and the bytes of the items."""
        return sha256_json({"suite": self.digest, "data": sha256_file(self.data_path())})


class RagScores(NamedTuple):
    """Scores by item, and who judged which metric; both are fields of an `EvalResult`."""

    items: tuple[ItemScore, ...]
    judged: dict[str, Judged]


def load_rag(path: Path) -> RagSuite:
    try:
        suite = RagSuite.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError) as error:
        raise BadInput(f"{path}: {error}") from error
    if not suite.data_path().is_file():
        raise BadInput(f"{path}: its data are not at {suite.data_path()}")
    suite.items()
    return suite


def question(item: RagItem) -> str:
    """What a model is asked: the task, the passages, the question."""
    passages = "\n\n".join(f"[{number}] {text}" for number, text in enumerate(item.contexts, start=1))
    return f"{PROMPT}\n\n{passages}\n\nQuestion: {item.question}"


def score_rag(
    suite: RagSuite,
    answers: Mapping[str, str],
    judges: Mapping[str, Sitting],
    embedder: Embeds,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> RagScores:
    """Score each answer. ``judges``: who judges which metric; a metric that needs a judge and has none is left out.

    An empty answer is neither faithful nor relevant: it scores 0 and no judge is asked. Raises `Refused` when answers
    are missing, or a judge is for another metric.
    """
    items = suite.items()
    if missing := [item.id for item in items if item.id not in answers]:
        raise Refused(f"{len(missing)} items of suite {suite.name} have no answer, the first is {missing[0]}")
    free = set(ragas_metrics.JUDGE_FREE) & set(suite.metrics)
    scores: dict[str, dict[str, float]] = {}
    for item in items:
        found = ragas_metrics.judge_free(answers[item.id], item.reference, embedder) if free else {}
        scores[item.id] = {metric: value for metric, value in found.items() if metric in free}
    told: dict[str, Judged] = {}
    for metric in ragas_metrics.JUDGED:
        if metric not in suite.metrics or metric not in judges:
            continue
        sitting = judges[metric]
        file = sitting.judge.file
        if not isinstance(file, RagasJudge) or file.metric != metric:
            raise Refused(f"judge {file.name} does not score {metric}")
        reads_answer = "response" in ragas_metrics.JUDGED[metric]
        asked = {
            item.id: _fields(item, answers[item.id]) for item in items if answers[item.id].strip() or not reads_answer
        }
        verdicts = judge_all(sitting.judge, sitting.endpoint, asked, embedder, progress)
        for item in items:
            scores[item.id][metric] = verdicts[item.id].score if item.id in verdicts else 0.0
        told[metric] = sitting.judged(sum(verdict.word == FAILED for verdict in verdicts.values()))
    return RagScores(
        tuple(ItemScore(item=item.id, cluster=item.cluster, scores=scores[item.id]) for item in items), told
    )


def _fields(item: RagItem, answer: str) -> Fields:
    return {"question": item.question, "response": answer, "context": item.contexts, "reference": item.reference}
