"""The payoff sheet: what a student costs and takes beside its teacher, and what quality that leaves.

Speed is of the same prompts on both; where one of the two failed, neither's time counts, and both failures are told.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_contracts.digests import Digest
from data_contracts.errors import BadInput
from data_contracts.frozen import Frozen
from data_contracts.verdicts import ItemScore
from evals import stats
from evals.serving_speed import Answer, Served, Timed, quantile
from evals.templates import page

RESAMPLES = 2_000
CONFIDENCE = 0.95


class Speed(Frozen):
    """One server. ``p50_s`` and ``p99_s`` are seconds of a whole answer, ``first_token_s`` the median until its first
    token; ``tokens_per_second`` and ``per_1k_tokens`` are of all that it did, failures included, at the concurrency of
    the sheet. ``None``: it counted no tokens, or nothing was answered."""

    name: str
    model: str
    price: float
    requests: int
    errors: dict[str, int]
    p50_s: float | None
    p99_s: float | None
    first_token_s: float | None
    tokens: int | None
    busy_s: float
    tokens_per_second: float | None
    per_1k_tokens: float | None


class Ratio(Frozen):
    """Student divided by teacher, with a bootstrap interval over pairs of answers (percentile, 95 %)."""

    name: str
    estimate: float
    low: float
    high: float


class Quality(Frozen):
    """One metric of both on the same items, with the gate's intervals over clusters. ``difference`` is student minus
    teacher; ``None`` where the clusters are too few for one."""

    metric: str
    n: int
    teacher: stats.Interval
    student: stats.Interval
    difference: stats.Interval | None


class Payoff(Frozen):
    """``prompts`` names the file that was asked from; ``paired`` is how many were answered by both."""

    kind: str = "payoff"
    prompts: Digest
    asked: int
    paired: int
    concurrency: int
    warm_up: int
    max_tokens: int
    currency: str
    teacher: Speed
    student: Speed
    ratios: tuple[Ratio, ...]
    cost_ratio: float | None
    quality: tuple[Quality, ...]
    answers: dict[str, Timed]


def payoff(
    served: tuple[Served, Served],
    timed: tuple[Timed, Timed],
    quality: tuple[Quality, ...],
    prompts: Digest,
    concurrency: int,
    warm_up: int,
    max_tokens: int,
    currency: str,
) -> Payoff:
    """The sheet. ``served`` and ``timed`` are (teacher, student)."""
    both = [
        (one, other)
        for one, other in zip(timed[0].answers, timed[1].answers, strict=True)
        if not one.error and not other.error
    ]
    teacher, student = (_speed(served[side], timed[side], [pair[side] for pair in both]) for side in (0, 1))
    costs = (teacher.per_1k_tokens, student.per_1k_tokens)
    return Payoff(
        prompts=prompts,
        asked=len(timed[0].answers),
        paired=len(both),
        concurrency=concurrency,
        warm_up=warm_up,
        max_tokens=max_tokens,
        currency=currency,
        teacher=teacher,
        student=student,
        ratios=tuple(_ratios([(one.seconds, other.seconds) for one, other in both])) if both else (),
        cost_ratio=costs[1] / costs[0] if costs[0] and costs[1] is not None else None,
        quality=quality,
        answers={"teacher": timed[0], "student": timed[1]},
    )


def _speed(served: Served, timed: Timed, paired: Sequence[Answer]) -> Speed:
    answered = [answer for answer in timed.answers if not answer.error]
    counted = [answer.tokens for answer in answered if answer.tokens is not None]
    tokens = sum(counted) if answered and len(counted) == len(answered) else None
    busy = sum(timed.busy_s)
    return Speed(
        name=served.name,
        model=served.model,
        price=served.price,
        requests=len(timed.answers),
        errors=dict(Counter(answer.error for answer in timed.answers if answer.error)),
        p50_s=quantile([answer.seconds for answer in paired], 0.5),
        p99_s=quantile([answer.seconds for answer in paired], 0.99),
        first_token_s=quantile([answer.first_token_s for answer in paired if answer.first_token_s is not None], 0.5),
        tokens=tokens,
        busy_s=busy,
        tokens_per_second=tokens / busy if tokens else None,
        per_1k_tokens=served.price / 3600 * busy / tokens * 1000 if tokens else None,
    )


def _ratios(seconds: Sequence[tuple[float, float]]) -> list[Ratio]:
    """Of the medians and of the 99th percentiles; pairs are drawn together."""
    import numpy as np

    pairs = np.array(seconds)
    drawn = pairs[np.random.default_rng(0).integers(len(pairs), size=(RESAMPLES, len(pairs)))]
    found = []
    for name, share in (("p50_s", 0.5), ("p99_s", 0.99)):
        teacher, student = np.quantile(pairs, share, axis=0, method="inverted_cdf")
        both = np.quantile(drawn, share, axis=1, method="inverted_cdf")
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(both[:, 1] / both[:, 0], [tail, 1 - tail])
        found.append(Ratio(name=name, estimate=float(student / teacher), low=float(low), high=float(high)))
    return found


def compare_quality(teacher: Sequence[ItemScore], student: Sequence[ItemScore]) -> tuple[Quality, ...]:
    """Every metric that both were scored by. Raises `BadInput` unless they were scored on the same items."""
    metrics = sorted({m for item in teacher for m in item.scores} & {m for item in student for m in item.scores})
    if not metrics:
        raise BadInput("teacher and student were not scored by any common metric: evaluate both on the same suite")
    return tuple(_quality(metric, _scores(teacher, metric), _scores(student, metric)) for metric in metrics)


def _quality(metric: str, teacher: list[stats.Score], student: list[stats.Score]) -> Quality:
    try:
        differences = stats.paired_differences(teacher, student)
        enough = len({each.cluster for each in differences}) >= stats.MIN_CLUSTERS
        return Quality(
            metric=metric,
            n=len(differences),
            teacher=stats.cluster_share(teacher).interval(CONFIDENCE),
            student=stats.cluster_share(student).interval(CONFIDENCE),
            difference=stats.cluster_interval(differences, CONFIDENCE) if enough else None,
        )
    except stats.StatsError as error:
        raise BadInput(f"{metric}: {error}: give results of the same suite for teacher and student") from error


def _scores(items: Sequence[ItemScore], metric: str) -> list[stats.Score]:
    return [stats.Score(item.item, item.cluster, item.scores[metric]) for item in items if metric in item.scores]


def pages(sheet: Payoff) -> dict[str, str]:
    """The sheet for people, by file name. It quotes no prompt and no answer."""
    facts: dict[str, Any] = {"sheet": sheet, "rows": _rows(sheet), "percent": f"{100 * CONFIDENCE:g} %"}
    names = {"payoff.md": "payoff.md.jinja", "payoff.html": "payoff.html.jinja"}
    return {name: page(template, **facts) for name, template in names.items()}


def _rows(sheet: Payoff) -> list[tuple[str, str, str, str]]:
    """(what, teacher, student, student / teacher) as text."""
    teacher, student = sheet.teacher, sheet.student
    ratio = {each.name: f"{each.estimate:.3f} [{each.low:.3f}, {each.high:.3f}]" for each in sheet.ratios}
    cost = "" if sheet.cost_ratio is None else f"{sheet.cost_ratio:.3f}"

    def told(value: float | None, form: str) -> str:
        return "not told" if value is None else format(value, form)

    def failures(speed: Speed) -> str:
        why = ", ".join(f"{reason}: {count}" for reason, count in sorted(speed.errors.items()))
        return f"{sum(speed.errors.values())} of {speed.requests}" + (f" ({why})" if why else "")

    return [
        ("median of an answer, s", told(teacher.p50_s, ".3f"), told(student.p50_s, ".3f"), ratio.get("p50_s", "")),
        ("99th percentile, s", told(teacher.p99_s, ".3f"), told(student.p99_s, ".3f"), ratio.get("p99_s", "")),
        ("median until the first token, s", told(teacher.first_token_s, ".3f"), told(student.first_token_s, ".3f"), ""),
        ("tokens a second", told(teacher.tokens_per_second, ".1f"), told(student.tokens_per_second, ".1f"), ""),
        (
            f"{sheet.currency} for 1,000 tokens",
            told(teacher.per_1k_tokens, ".6f"),
            told(student.per_1k_tokens, ".6f"),
            cost,
        ),
        (f"{sheet.currency} for an hour of its devices", f"{teacher.price:g}", f"{student.price:g}", ""),
        ("requests that failed", failures(teacher), failures(student), ""),
    ]


def write(sheet: Payoff, folder: Path) -> None:
    """``payoff.json``, ``payoff.md`` and ``payoff.html`` in a folder that is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"payoff.json": sheet.model_dump_json(indent=2) + "\n", **pages(sheet)}.items():
        (folder / name).write_text(text, encoding="utf-8")
