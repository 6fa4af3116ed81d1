"""Statistics of paired evaluation. Anything that is not a clean pairing of finite scores is an error, never a number.

Items of one cluster (a persona, a topic) are not independent, so clusters are what is resampled.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_CLUSTERS = 8
"""With fewer clusters nothing can be told of how far they differ from each other."""
_NOTHING = 1e-12
"""Differences below this come from rounding."""
_BLOCK = 250_000
"""Numbers that are drawn at once: 2 MB stay in a processor's cache, and are too few to be shared out to threads, which
on a busy machine wait for each other."""


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


@dataclass(frozen=True)
class ClusterMean:
    """A mean per item over clusters, with resampled means that lean as low and as high as the data allow.

    ``lower`` and ``upper`` [resamples]. ``degrees``: their tails are widened to Student's t of so many degrees of
    freedom; ``None``: they need no widening.
    """

    estimate: float
    clusters: int
    lower: "NDArray[Any]"
    upper: "NDArray[Any]"
    degrees: float | None

    def interval(self, confidence: float) -> Interval:
        """Two-sided: either bound errs with probability (1 - confidence) / 2."""
        import numpy as np
        from scipy.special import ndtr, stdtrit

        tail = (1 - confidence) / 2
        if self.degrees is not None:
            tail = float(ndtr(stdtrit(self.degrees, tail)))
        low, high = np.quantile(self.lower, tail), np.quantile(self.upper, 1 - tail)
        return Interval(self.estimate, min(float(low), self.estimate), max(float(high), self.estimate))

    def p_at_least(self, bound: float) -> float:
        """One-sided p-value of "the mean is at least ``bound``"."""
        return self._p(int((self.upper > bound).sum()))

    def p_at_most(self, bound: float) -> float:
        """One-sided p-value of "the mean is at most ``bound``"."""
        return self._p(int((self.lower < bound).sum()))

    def reach(self, confidence: float, power: float) -> float:
        """How far above a bound the true mean must lie for the interval to lie above it with probability ``power``,
        with so many clusters of such scatter."""
        low = self.interval(confidence).low
        return self.estimate - low + NormalDist().inv_cdf(power) * float(self.lower.std())

    def reach_down(self, confidence: float, power: float) -> float:
        """The same below a bound."""
        high = self.interval(confidence).high
        return high - self.estimate + NormalDist().inv_cdf(power) * float(self.upper.std())

    def _p(self, against: int) -> float:
        from scipy.special import ndtri, stdtr

        p = (1 + against) / (1 + len(self.lower))
        return p if self.degrees is None or p >= 1 else float(stdtr(self.degrees, ndtri(p)))


def cluster_difference(differences: Sequence[Score], resamples: int = 10_000, seed: int = 0) -> ClusterMean:
    """Mean of paired differences in [-1, 1] per item, by the Bayesian bootstrap over clusters with one unseen cluster.

    The Bayesian bootstrap (Rubin 1981, doi:10.1214/aos/1176345338) weighs the clusters by a flat Dirichlet. Joined to
    them is one cluster that nobody saw, which differs as much as can be, once for the worse and once for the better
    (Gaffke 2005; Learned-Miller & Thomas 2019, arXiv:1905.06208). For single zeros and ones this is Clopper and
    Pearson's interval; where nothing differs, the rule of three.

    How much can be: where differences are 0, 1 or -1, a whole 1. Otherwise somewhat more than the largest that was
    seen, the more so the fewer clusters there are (1 + 16 / clusters times, never above 1): by so much skewed scores
    keep their coverage in `benchmarks/gate_simulation.py`. A rare change far worse than any that was seen is not
    allowed for.
    """
    groups = _by_cluster(differences, -1)
    largest = max(abs(score.value) for score in differences)
    end = min(1.0, largest * (1 + 16 / _effective(groups))) if largest > _NOTHING else 1.0
    return _resampled(groups, (-end, end), resamples, seed)


def cluster_share(scores: Sequence[Score], resamples: int = 10_000, seed: int = 0) -> ClusterMean:
    """Mean of scores in [0, 1] per item, in the same way; the unseen cluster scores 0 or 1."""
    checked(scores)
    return _resampled(_by_cluster(scores, 0), (0.0, 1.0), resamples, seed)


def cluster_interval(
    differences: Sequence[Score], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Mean difference per item with its two-sided interval, see `cluster_difference`."""
    return cluster_difference(differences, resamples, seed).interval(confidence)


def _resampled(groups: Sequence[Sequence[float]], ends: tuple[float, float], resamples: int, seed: int) -> ClusterMean:
    """Clusters of equal sum and size are drawn as one pattern, so that many alike cost what one does."""
    import numpy as np

    alike = Counter((math.fsum(group), len(group)) for group in groups)
    patterns = np.array(sorted(alike))
    times = np.array([alike[each] for each in sorted(alike)], dtype=float)
    items = sum(len(group) for group in groups)
    estimate = math.fsum(value for group in groups for value in group) / items
    effective = _effective(groups)
    whole = items / effective
    unseen = _unseen_items(groups, estimate, whole)

    random = np.random.default_rng(seed)
    added = unseen * random.standard_exponential(resamples)
    totals = np.empty((2, resamples))
    alone = len(times) == len(groups)  # then the same numbers are drawn in a third of the time
    step = max(1, _BLOCK // len(times))
    for first in range(0, resamples, step):
        size = (min(step, resamples - first), len(times))
        weights = random.standard_exponential(size) if alone else random.standard_gamma(times, size)
        totals[:, first : first + step] = (weights @ patterns).T
    lower, upper = ((totals[0] + added * end) / (totals[1] + added) for end in ends)
    return ClusterMean(estimate, len(groups), lower, upper, effective if unseen < whole else None)


def _effective(groups: Sequence[Sequence[float]]) -> float:
    """How many clusters of equal size tell as much (Kish 1965): all, where sizes are equal, and near one where one of
    them holds most of the items."""
    return sum(len(group) for group in groups) ** 2 / sum(len(group) ** 2 for group in groups)


def _unseen_items(groups: Sequence[Sequence[float]], estimate: float, whole: float) -> float:
    """How many items the unseen cluster has: a ``whole`` cluster's where items of a cluster rise and fall together, one
    where each does so for itself. Between the two the design effect tells (Kish 1965), the variance of the mean by
    clusters over that by items, reckoned as though one more whole cluster had been seen to differ. Few clusters tell
    nothing."""
    k = _effective(groups)
    scale = max(abs(value - estimate) for group in groups for value in group)
    if k < MIN_CLUSTERS or scale < _NOTHING:
        return whole
    off = [[(value - estimate) / scale for value in group] for group in groups]
    together = math.fsum(math.fsum(group) ** 2 for group in off)
    apart = math.fsum(value**2 for group in off for value in group)
    return min(whole, max(1.0, (together * k / (k - 1) + whole) / (apart + 1)))


def sign_flip_p(differences: Sequence[Score], flips: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of "no difference" by flipping the signs of whole clusters: exact up to 13 clusters, sampled
    beyond, where the observed flip counts too (Phipson & Smyth 2010, doi:10.2202/1544-6115.1585)."""
    import numpy as np

    sums = np.array([math.fsum(group) for group in _by_cluster(differences, -1)])
    observed = abs(sums.sum()) - 1e-12
    if len(sums) <= 13:
        signs = 1 - 2 * ((np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1)
        return float(np.mean(np.abs(signs @ sums) >= observed))
    random, extreme, step = np.random.default_rng(seed), 0, max(1, _BLOCK // len(sums))
    for first in range(0, flips, step):
        signs = random.choice((-1, 1), size=(min(step, flips - first), len(sums)))
        extreme += int(np.sum(np.abs(signs @ sums) >= observed))
    return (1 + extreme) / (1 + flips)


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


def _by_cluster(scores: Sequence[Score], least: float) -> list[list[float]]:
    groups: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        if not (math.isfinite(score.value) and least <= score.value <= 1):
            raise StatsError(f"item {score.item} has the value {score.value}, which is not in [{least:g}, 1]")
        groups[score.cluster].append(score.value)
    if len(scores) != len({score.item for score in scores}):
        raise StatsError("an item comes twice")
    if not groups:
        raise StatsError("no scores")
    return [groups[name] for name in sorted(groups)]
