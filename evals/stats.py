"""Statistics of paired evaluation. Anything that is not a clean pairing of finite scores is an error, never a number.

Items of one cluster (a persona, a topic) are not independent, so clusters are what is resampled.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

MIN_CLUSTERS = 8
"""With fewer clusters a bootstrap interval is too narrow to decide anything on."""


class StatsError(ValueError):
    """The scores do not allow the statistic; the message says why."""


class Score(NamedTuple):
    """One item's score in [0, 1] under one metric."""

    item: str
    cluster: str
    value: float


class Interval(NamedTuple):
    estimate: float
    low: float
    high: float


def checked(scores: Sequence[Score]) -> dict[str, Score]:
    """Scores by item. Raises `StatsError` for none, for a repeated item, and for a value outside [0, 1] or NaN."""
    if not scores:
        raise StatsError("no scores")
    by_item: dict[str, Score] = {}
    for score in scores:
        if score.item in by_item:
            raise StatsError(f"item {score.item} is scored twice")
        if not (math.isfinite(score.value) and 0 <= score.value <= 1):
            raise StatsError(f"item {score.item} has the score {score.value}, which is not in [0, 1]")
        by_item[score.item] = score
    return by_item


def mean(scores: Sequence[Score]) -> float:
    values = [score.value for score in checked(scores).values()]
    return math.fsum(values) / len(values)


def paired_differences(baseline: Sequence[Score], candidate: Sequence[Score]) -> list[Score]:
    """Candidate minus baseline, item by item, in [-1, 1]. Raises `StatsError` unless both have the same items."""
    before, after = checked(baseline), checked(candidate)
    if alone := sorted(before.keys() ^ after.keys()):
        raise StatsError(f"{len(alone)} items are scored on one side only, the first is {alone[0]}")
    if moved := [item for item in before if before[item].cluster != after[item].cluster]:
        raise StatsError(f"item {moved[0]} is in another cluster on the other side")
    return [Score(item, before[item].cluster, after[item].value - before[item].value) for item in sorted(before)]


def cluster_interval(
    differences: Sequence[Score], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Mean difference per item with a two-sided interval: the cluster bootstrap (Davison & Hinkley 1997, section 3.8),
    its percentiles widened to Student's t as small samples need (Hesterberg 2015, doi:10.1080/00031305.2015.1089789,
    "expanded percentile").

    Where all items differ by the same amount there is nothing to resample. Then a share p of clusters may differ and
    yet none of the k seen does, with probability (1 - p)**k: the interval reaches as far as that is likely (the rule
    of three, Hanley & Lippman-Hand 1983), within [-1, 1].

    Raises `StatsError` below `MIN_CLUSTERS` clusters.
    """
    import numpy as np
    from scipy.special import stdtrit

    groups = _by_cluster(differences)
    k = len(groups)
    if k < MIN_CLUSTERS:
        raise StatsError(f"{k} clusters are too few for an interval (at least {MIN_CLUSTERS})")
    sizes = np.array([len(group) for group in groups], dtype=float)
    sums = np.array([math.fsum(group) for group in groups])
    estimate = float(sums.sum() / sizes.sum())
    tail = (1 - confidence) / 2
    if len({score.value for score in differences}) == 1:
        reach = 1 - tail ** (1 / k)
        return Interval(estimate, max(-1.0, estimate - reach), min(1.0, estimate + reach))
    drawn = np.random.default_rng(seed).integers(k, size=(resamples, k))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    tail = NormalDist().cdf(math.sqrt(k / (k - 1)) * float(stdtrit(k - 1, tail)))
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(estimate, min(float(low), estimate), max(float(high), estimate))


def sign_flip_p(differences: Sequence[Score], flips: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of "no difference" by flipping the signs of whole clusters: exact up to 13 clusters, sampled
    beyond, where the observed flip counts too (Phipson & Smyth 2010, doi:10.2202/1544-6115.1585)."""
    import numpy as np

    sums = np.array([math.fsum(group) for group in _by_cluster(differences)])
    observed = abs(sums.sum()) - 1e-12
    if len(sums) <= 13:
        signs = 1 - 2 * ((np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1)
        return float(np.mean(np.abs(signs @ sums) >= observed))
    signs = np.random.default_rng(seed).choice((-1, 1), size=(flips, len(sums)))
    return float((1 + np.sum(np.abs(signs @ sums) >= observed)) / (1 + flips))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values (Holm 1979, Scandinavian Journal of Statistics 6:65-70)."""
    if bad := [name for name, p in p_values.items() if not 0 <= p <= 1]:
        raise StatsError(f"{bad[0]} has the p-value {p_values[bad[0]]}, which is not in [0, 1]")
    adjusted: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda n: p_values[n])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = highest
    return adjusted


def wilson(scores: Sequence[Score], confidence: float = 0.95) -> Interval:
    """Share of ones with Wilson's score interval (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    For scores between 0 and 1 it is too wide, never too narrow, as their variance is at most p(1 - p).
    """
    n, p = len(scores), mean(scores)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Interval(p, min(p, max(0.0, centre - reach)), max(p, min(1.0, centre + reach)))


def _by_cluster(differences: Sequence[Score]) -> list[list[float]]:
    groups: dict[str, list[float]] = defaultdict(list)
    for score in differences:
        if not (math.isfinite(score.value) and -1 <= score.value <= 1):
            raise StatsError(f"item {score.item} differs by {score.value}, which is not in [-1, 1]")
        groups[score.cluster].append(score.value)
    if len(differences) != len({score.item for score in differences}):
        raise StatsError("an item comes twice")
    return [groups[name] for name in sorted(groups)]
