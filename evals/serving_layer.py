"""The serving layer: how fast and how reliably an artifact answers as it is served, as shares that a gate can bound.

A request is slow or it is not, it fails or it does not: scores of 0 and 1, 1 being what is not wanted, so that a
``ceiling`` on them is a statement on the rate with its interval over clusters. The times themselves are reported.
"""

from collections import Counter
from collections.abc import Sequence

from data_contracts.errors import Refused
from data_contracts.frozen import Frozen
from evals.serving_speed import Answer, Timed

METRICS = {
    "failed": "no whole answer came",
    "slow_first_token": "none came, or its first token too late",
    "slow_token": "none came, or its tokens too far apart",
}
"""Metric -> when a request counts as 1."""
BEHIND = {
    "behind_first_token": "none came, or its first token took too many times as long as the baseline's",
    "behind_token": "none came, or its tokens lie too many times as far apart as the baseline's",
    "behind_throughput": "the round's tokens a second are too few beside the baseline's",
}
"""The same beside a baseline that was asked the same at the same time; the last one is of a round of requests."""


class Quantiles(Frozen):
    """In milliseconds, of the requests that were answered."""

    p50: float
    p95: float
    p99: float


class ServingFigures(Frozen):
    """``first_token_ms`` from sending a request to its first token (TTFT); ``token_ms`` the mean time between tokens
    after it (ITL), of answers of two tokens and more; ``tokens_per_second`` of all requests at this concurrency.
    ``None``: nothing was answered, or the server counts no tokens."""

    requests: int
    errors: dict[str, int]
    first_token_ms: Quantiles | None
    token_ms: Quantiles | None
    tokens_per_second: float | None


def figures(timed: Timed) -> ServingFigures:
    answered = [answer for answer in timed.answers if not answer.error]
    tokens = sum(answer.tokens or 0 for answer in answered)
    return ServingFigures(
        requests=len(timed.answers),
        errors=dict(Counter(answer.error for answer in timed.answers if answer.error)),
        first_token_ms=_quantiles([answer.first_token_s for answer in answered]),
        token_ms=_quantiles([between(answer) for answer in answered]),
        tokens_per_second=tokens / sum(timed.busy_s) if tokens else None,
    )


def rows(timed: Timed, first_token_ms: float, token_ms: float) -> list[dict[str, str | float]]:
    """``{suite, item, cluster, score}`` of every request, of suites ``serving-failed`` and so on. Those that were asked
    at once are one cluster: they wait for each other. Raises `Refused` when the server counts no tokens."""
    check_counted(timed)
    found: list[dict[str, str | float]] = []
    for answer in timed.answers:
        name = {"item": f"prompt-{answer.prompt:05}", "cluster": f"round-{answer.round:05}"}
        for metric, score in faults(answer, first_token_ms, token_ms).items():
            found.append({"suite": f"serving-{metric.replace('_', '-')}"} | name | {"score": score})
    return found


def check_counted(timed: Timed) -> None:
    """Raises `Refused` unless every answer tells of how many tokens it is."""
    if any(answer.tokens is None for answer in timed.answers if not answer.error):
        raise Refused(
            "the server counts no tokens (stream_options.include_usage): nobody can tell how far they lie apart"
        )


def faults(answer: Answer, first_token_ms: float, token_ms: float) -> dict[str, float]:
    """`METRICS` of one request. A time that is not a number is too long."""
    return {
        "failed": float(bool(answer.error)),
        "slow_first_token": float(not _within(answer, answer.first_token_s, first_token_ms / 1000)),
        "slow_token": float(not _apart_within(answer, token_ms / 1000)),
    }


def behind(answer: Answer, baseline: Answer, times: float) -> dict[str, float]:
    """The first two of `BEHIND`, of one request and the baseline's of the same question. Where only the baseline
    failed, or its answer has no second token, nothing is behind it."""
    first, gap = baseline.first_token_s, between(baseline)
    compared = not baseline.error
    late = compared and first is not None and not _within(answer, answer.first_token_s, times * first)
    apart = compared and gap is not None and not _apart_within(answer, times * gap)
    return {
        "behind_first_token": float(bool(answer.error) or late),
        "behind_token": float(bool(answer.error) or apart),
    }


def throughput(timed: Timed) -> list[float]:
    """Tokens a second of each round."""
    tokens = Counter[int]()
    for answer in timed.answers:
        tokens[answer.round] += 0 if answer.error else (answer.tokens or 0)
    return [tokens[number] / seconds for number, seconds in enumerate(timed.busy_s)]


def behind_throughput(own: float, baseline: float, times: float) -> float:
    """The last of `BEHIND`, of one round. One without any token is behind whatever it is compared with."""
    return float(not (own > 0 and own * times >= baseline))


def between(answer: Answer) -> float | None:
    """Mean seconds between tokens; ``None`` for an answer of fewer than two."""
    if answer.first_token_s is None or answer.tokens is None or answer.tokens < 2:
        return None
    return (answer.seconds - answer.first_token_s) / (answer.tokens - 1)


def _within(answer: Answer, seconds: float | None, limit: float) -> bool:
    return not answer.error and seconds is not None and seconds <= limit


def _apart_within(answer: Answer, limit: float) -> bool:
    gap = between(answer)
    return not answer.error and (gap is None or gap <= limit)


def _quantiles(seconds: Sequence[float | None]) -> Quantiles | None:
    import numpy as np

    known = [1000 * each for each in seconds if each is not None]
    if not known:
        return None
    p50, p95, p99 = (float(np.quantile(known, share, method="inverted_cdf")) for share in (0.5, 0.95, 0.99))
    return Quantiles(p50=p50, p95=p95, p99=p99)
