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
    "serving-failed": "no whole answer came",
    "serving-slow-first-token": "none came, or its first token too late",
    "serving-slow-token": "none came, or its tokens too far apart",
}
"""Suite -> when a request counts as 1."""


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
        token_ms=_quantiles([_between(answer) for answer in answered]),
        tokens_per_second=tokens / sum(timed.busy_s) if tokens else None,
    )


def rows(timed: Timed, first_token_ms: float, token_ms: float) -> list[dict[str, str | float]]:
    """``{suite, item, cluster, score}`` of every request. Those that were asked at once are one cluster: they wait for
    each other. Raises `Refused` when the server counts no tokens."""
    if any(answer.tokens is None for answer in timed.answers if not answer.error):
        raise Refused(
            "the server counts no tokens (stream_options.include_usage): nobody can tell how far they lie apart"
        )
    found: list[dict[str, str | float]] = []
    for answer in timed.answers:
        first, between = answer.first_token_s, _between(answer)
        events = {
            "serving-failed": bool(answer.error),
            "serving-slow-first-token": bool(answer.error) or first is None or first * 1000 > first_token_ms,
            "serving-slow-token": bool(answer.error) or (between is not None and between * 1000 > token_ms),
        }
        name = {"item": f"prompt-{answer.prompt:05}", "cluster": f"round-{answer.round:05}"}
        found += [{"suite": suite} | name | {"score": float(events[suite])} for suite in METRICS]
    return found


def _between(answer: Answer) -> float | None:
    if answer.first_token_s is None or answer.tokens is None or answer.tokens < 2:
        return None
    return (answer.seconds - answer.first_token_s) / (answer.tokens - 1)


def _quantiles(seconds: Sequence[float | None]) -> Quantiles | None:
    import numpy as np

    known = [1000 * each for each in seconds if each is not None]
    if not known:
        return None
    p50, p95, p99 = (float(np.quantile(known, share, method="inverted_cdf")) for share in (0.5, 0.95, 0.99))
    return Quantiles(p50=p50, p95=p95, p99=p99)
