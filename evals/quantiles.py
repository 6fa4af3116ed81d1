"""Quantiles of times with intervals that agree with the gate's ceilings: a bound is where the share of requests beyond
it can no longer be told from what the quantile allows."""

import math
from bisect import bisect_left
from collections.abc import Sequence

from evals import stats


def quantile(
    times: Sequence[stats.Score], share: float, confidence: float, resamples: int = 10_000, seed: int = 0
) -> stats.Interval:
    """The least time that at least ``share`` of all requests do not exceed. A request that got no answer has the time
    infinity; so has a bound that too few requests, or too few clusters of them, can tell.

    The interval holds every time at which the interval of "the share of requests within it" (`stats.cluster_share`)
    holds ``share``. Raises `StatsError` for none, for a request that comes twice, and for a time that is not a number
    or negative.
    """
    if bad := [each.item for each in times if not each.value >= 0]:
        raise stats.StatsError(f"request {bad[0]} took no time that is a number")
    known = sorted({0.0} | {each.value for each in times if math.isfinite(each.value)})

    def within(limit: float) -> stats.Interval:
        kept = [each._replace(value=float(each.value <= limit)) for each in times]
        return stats.cluster_share(kept, resamples, seed).interval(confidence)

    def least(bound: int) -> float:
        """The first time at which this bound (0: the estimate itself) of the share is large enough."""
        place = bisect_left(known, True, key=lambda limit: within(limit)[bound] >= share)
        return known[place] if place < len(known) else math.inf

    stats.checked([each._replace(value=0.0) for each in times])
    estimate, latest, soonest = (least(bound) for bound in range(3))
    return stats.Interval(estimate, min(soonest, estimate), max(latest, estimate))
