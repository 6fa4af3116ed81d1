"""The decision sheet of the technique desk: figures and digests, no text of an item, a document or an answer."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from itertools import combinations
from typing import Literal

from data_contracts.digests import Digest
from data_contracts.errors import BadInput
from data_contracts.frozen import Frozen
from data_contracts.verdicts import EvalResult
from evals import stats
from evals.document import CONFIDENCE, YEAR, Volatility
from evals.recommend import Choice, Payback, Rival, Technique, payback, recommend
from evals.serving_speed import Timed, quantile
from evals.suite import Suite

PER = 1000
"""Requests that a cost is told of."""
MARGIN = 0.05
"""Of a suite that states none, as in a gate policy."""


class Speed(Frozen):
    """Of the timed requests, failures included in ``server_s`` and ``cost``: what 1,000 of them take of the server, in
    seconds and, where an hour has a price, in money. ``p50_s`` and ``p95_s`` are seconds of a whole answer; tokens are
    means of a request. ``None``: nothing was answered, or the server counts no tokens."""

    requests: int
    errors: dict[str, int]
    p50_s: float | None
    p95_s: float | None
    prompt_tokens: float | None
    completion_tokens: float | None
    server_s: float
    cost: float | None


class Row(Frozen):
    """One technique on one suite; ``difference`` is to the highest mean of those that are not barred, paired."""

    technique: Technique
    result: Digest
    quality: stats.Interval
    difference: stats.Interval | None
    speed: Speed


class OnSuite(Frozen):
    """``recall`` is the share of items whose document was among the passages. ``volatility`` is of the documents that
    the items name."""

    suite: str
    suite_digest: Digest
    metric: str
    items: int
    clusters: int
    margin: float
    rows: tuple[Row, ...]
    recall: stats.Interval | None
    volatility: Volatility | None
    choice: Choice
    payback: Payback


class Training(Frozen):
    """All recorded starts of the trainer that led to the model, added up."""

    seconds: float
    cost: float | None


class DeskSheet(Frozen):
    """``confidence`` is of single intervals; those of differences hold together for a suite.
    ``price`` is of an hour of the machine that serves."""

    kind: Literal["desk"] = "desk"
    product: str
    model: Digest
    base: Digest
    template: Digest
    documents: Digest
    embedder: str
    passages: int
    as_of: date
    retrained_days: int
    least: float
    confidence: float = CONFIDENCE
    concurrency: int
    limit: int | None
    price: float | None
    engine: str
    training: Training | None
    suites: tuple[OnSuite, ...]
    choice: Choice


def speed(timed: Timed, price: float | None) -> Speed:
    answered = [answer for answer in timed.answers if not answer.error]
    seconds = sum(timed.busy_s) / len(timed.answers) * PER
    return Speed(
        requests=len(timed.answers),
        errors=dict(Counter(answer.error for answer in timed.answers if answer.error)),
        p50_s=quantile([answer.seconds for answer in answered], 0.5),
        p95_s=quantile([answer.seconds for answer in answered], 0.95),
        prompt_tokens=_mean([answer.prompt_tokens for answer in answered]),
        completion_tokens=_mean([answer.tokens for answer in answered]),
        server_s=seconds,
        cost=None if price is None else price / 3600 * seconds,
    )


def on_suite(
    suite: Suite,
    results: Mapping[Technique, EvalResult],
    speeds: Mapping[Technique, Speed],
    recall: Sequence[stats.Score],
    volatility: Volatility | None,
    retrained_days: int,
    least: float,
    training: float | None,
) -> OnSuite:
    """Figures and choice on one suite; ``training`` in seconds of the server. Raises `BadInput` where its headline
    applies to none of the items asked."""
    metric, margin = suite.headline, MARGIN if suite.margin is None else suite.margin
    scores = {technique: _scores(result, metric) for technique, result in results.items()}
    rivals = [
        Rival(
            technique=technique,
            quality=stats.cluster_share(scores[technique]).interval(CONFIDENCE),
            against=against,
            cost=speeds[technique].server_s,
            barred=outdated(volatility, retrained_days) if technique == "fine-tuned" else "",
        )
        for technique, against in _differences(scores).items()
    ]
    choice = recommend(rivals, margin, least)
    able = [each for each in rivals if not each.barred]
    best = max(able, key=lambda each: each.quality.estimate).technique
    first = next(iter(scores.values()))
    return OnSuite(
        suite=suite.name,
        suite_digest=suite.content_digest(),
        metric=metric,
        items=len(first),
        clusters=len({each.cluster for each in first}),
        margin=margin,
        rows=tuple(
            Row(
                technique=each.technique,
                result=results[each.technique].digest,
                quality=each.quality,
                difference=each.against.get(best),
                speed=speeds[each.technique],
            )
            for each in rivals
        ),
        recall=stats.cluster_share(recall).interval(CONFIDENCE) if recall else None,
        volatility=volatility,
        choice=choice,
        payback=payback(rivals, margin, training, PER),
    )


def in_server_seconds(training: Training | None, price: float | None) -> float | None:
    """What the training cost, in seconds that the server could be paid for instead; where one of the two has no price,
    an hour of either is taken to cost the same."""
    if training is None or training.cost is None or not price:
        return None if training is None else training.seconds
    return training.cost / price * 3600


def outdated(volatility: Volatility | None, retrained_days: int) -> str:
    """Why a model that is trained anew so seldom cannot know such facts; empty: it can."""
    trainings = YEAR / retrained_days
    if volatility is None or volatility.per_year.estimate <= trainings:
        return ""
    return (
        f"a document changes {volatility.per_year.estimate:.2f} times a year, and the product is trained "
        f"{trainings:.2f} times"
    )


def _differences(scores: Mapping[Technique, list[stats.Score]]) -> dict[Technique, dict[Technique, stats.Interval]]:
    """Of each technique to each other one, paired by item, each with its share of the error: as many comparisons may go
    wrong as there are rivals of the true best, whichever that is (multiple comparisons with the best, Hsu 1984, Annals
    of Statistics 12:1136-1144; Bonferroni's inequality in place of a known distribution)."""
    confidence = 1 - (1 - CONFIDENCE) / (len(scores) - 1)
    found: dict[Technique, dict[Technique, stats.Interval]] = {technique: {} for technique in scores}
    for one, other in combinations(scores, 2):
        interval = stats.cluster_interval(stats.paired_differences(scores[other], scores[one]), confidence)
        found[one][other] = interval
        found[other][one] = stats.Interval(0 - interval.estimate, 0 - interval.high, 0 - interval.low)  # never -0.0
    return found


def _scores(result: EvalResult, metric: str) -> list[stats.Score]:
    scores = [stats.Score(i.item, i.cluster, i.scores[metric]) for i in result.items if metric in i.scores]
    if not scores:
        raise BadInput(f"suite {result.suite}: {metric} applies to none of the items asked: raise --limit")
    return scores


def _mean(values: Sequence[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
