"""Metrics that a judge model scores: who judges which, what it is asked about an answer, and its scores, which are kept
as answers are. A judge that says nothing that can be read has failed on the item, which then scores 0 and is counted;
that is not kept, and asked again the next time.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from data_contracts.digests import Digest, sha256_json
from data_contracts.errors import BadInput
from data_contracts.verdicts import Judged
from evals.calibration import Sitting, seat
from evals.judge import FAILED, Fields, Judge, judge_all, load_judge
from evals.kept import Progress
from evals.passages import PassageItem
from evals.protocols import Embeds, Keeping, Kept
from evals.question import QuestionItem
from evals.ragas_metrics import JUDGED
from evals.suite import RUBRIC, CallItem, Suite

JUDGES: dict[str, str] = {RUBRIC: "reply-quality", **{metric: f"ragas-{metric.replace('_', '-')}" for metric in JUDGED}}
"""Metric -> file of ``evals/judges``."""
SET_JUDGE = "set ASSAY_JUDGE_URL and ASSAY_JUDGE_MODEL (of `assay eval`: --judge-url and --judge-model)"
_AT_ONCE = 32
"""Answers that are judged before what was said of them is kept."""


class JudgeScores(NamedTuple):
    """Scores by item and metric, where the metric applies; and who judged which metric."""

    scores: dict[str, dict[str, float]]
    judged: dict[str, Judged]


def left_out(parts: Keeping, suite: Suite) -> str:
    """Which metrics are not measured for want of a judge, and what to do about it; nothing where all are."""
    if not suite.judged or parts.judge is not None:
        return ""
    return f"suite {suite.name}: {', '.join(suite.judged)}: not measured, as this asks a judge model: {SET_JUDGE}"


def sittings(parts: Keeping, suite: Suite) -> dict[str, Sitting]:
    """Who judges which metric of the suite. Raises `BadInput` where without a judge nothing is left to measure."""
    model = parts.judge if suite.judged else None
    if model is None:
        if len(suite.judged) == len(suite.metrics):
            raise BadInput(left_out(parts, suite))
        return {}
    files = {metric: load_judge(JUDGES[metric]) for metric in suite.judged}
    return {
        metric: seat(parts.store, Judge(file, model.model, model.template), model.endpoint, model.policy)
        for metric, file in files.items()
    }


def judge_answers(
    parts: Keeping,
    judges: Mapping[str, Sitting],
    items: Sequence[CallItem | QuestionItem | PassageItem],
    texts: Mapping[str, str],
    artifact: Digest,
    progress: Progress,
    fresh: bool = False,
) -> JudgeScores:
    """Let each judge score the ``texts`` of the items that its metric applies to; what it said of one before is kept,
    with the answers of this ``artifact``. An empty answer scores 0 and nobody is asked.

    Raises `Unavailable` where a judge cannot be reached; what it said until then stays kept.
    """
    found = JudgeScores({item.id: {} for item in items}, {})
    for metric, sitting in judges.items():
        reads = sitting.judge.file.fields()
        given = {item.id: _fields(item, texts[item.id]) for item in items}
        asked = {item: {name: fields[name] for name in reads} for item, fields in given.items() if reads <= set(fields)}
        said = {item: fields for item, fields in asked.items() if "response" not in reads or texts[item].strip()}
        embedder = parts.embedder if metric == "answer_relevancy" else None
        scores = _scores(parts, sitting, said, embedder, artifact, progress, fresh)
        for item in asked:
            found.scores[item][metric] = scores.get(item, 0.0)
        found.judged[metric] = sitting.judged(failed=len(said) - len(scores))
    return found


def _fields(item: CallItem | QuestionItem | PassageItem, text: str) -> Fields:
    """What can be told of an item and its answer."""
    if isinstance(item, PassageItem):
        return {"question": item.text, "response": text, "context": item.contexts, "reference": item.reference}
    if isinstance(item, QuestionItem) and item.rubric:
        return {"question": item.said(), "response": text, "criteria": item.rubric}
    return {}


def _scores(
    parts: Keeping,
    sitting: Sitting,
    asked: Mapping[str, Fields],
    embedder: Embeds | None,
    artifact: Digest,
    progress: Progress,
    fresh: bool,
) -> dict[str, float]:
    """Score by item, kept or asked for; items on which the judge failed are left out."""
    judge = sitting.judge
    by = {"judge": judge.identity, "embedder": embedder.identity if embedder else None}
    keys = {item: sha256_json({**by, "asked": {**fields}}) for item, fields in asked.items()}
    kept = {} if fresh else parts.answers.get(keys.values())
    missing = {key: asked[item] for item, key in keys.items() if key not in kept}
    waiting = list(missing)
    for start in range(0, len(waiting), _AT_ONCE):
        some = {key: missing[key] for key in waiting[start : start + _AT_ONCE]}
        verdicts = judge_all(judge, sitting.endpoint, some, embedder)
        new = {key: Kept(each.score, judge.model) for key, each in verdicts.items() if each.word != FAILED}
        parts.answers.put(artifact, new)
        kept |= new
        progress(len(keys) - len(waiting) + start + len(some), len(keys))
    return {item: cast(float, kept[key].answer) for item, key in keys.items() if key in kept}
