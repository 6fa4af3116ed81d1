"""Cohen's kappa (Cohen 1960, doi:10.1177/001316446002000104) of a judge against people, with an interval."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

from evals.stats import MIN_CLUSTERS, Interval, StatsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TAIL = 0.025
_RESAMPLES = 2000


class Pair(NamedTuple):
    """What people and the judge say of one item. Items of one cluster are not independent."""

    cluster: str
    label: str
    verdict: str


def cohens_kappa(pairs: Sequence[Pair], places: dict[str, float] | None = None, seed: int = 0) -> Interval:
    """Kappa: 1 - observed / expected disagreement. Where ``places`` gives each word its place in [0, 1] on a scale, a
    disagreement weighs the square of the distance (Cohen 1968); a word without a place is as far as can be from all.

    The 95% interval is the percentile bootstrap over clusters, widened as in `evals.stats.cluster_interval`. A resample
    in which all say the same shows no agreement beyond chance: 0. Without any disagreement there is nothing to
    resample: the interval then reaches down as far as the rule of three says.

    Raises `StatsError` below `MIN_CLUSTERS` clusters, and where people give one label only.
    """
    import numpy as np
    from scipy.special import stdtrit

    if len({pair.label for pair in pairs}) < 2:
        raise StatsError("people give all items the same label, so that kappa says nothing")
    place = {name: number for number, name in enumerate(sorted({pair.cluster for pair in pairs}))}
    k = len(place)
    if k < MIN_CLUSTERS:
        raise StatsError(f"{k} clusters are too few for an interval (at least {MIN_CLUSTERS})")
    words = sorted({word for pair in pairs for word in (pair.label, pair.verdict)})
    counts = np.zeros((k, len(words), len(words)))
    for pair in pairs:
        counts[place[pair.cluster], words.index(pair.label), words.index(pair.verdict)] += 1
    weights = np.array([[_distance(one, other, places) for other in words] for one in words])
    whole = counts.sum(axis=0, keepdims=True)
    estimate = float(_kappas(whole, weights)[0])
    if not (whole * weights).any():
        reach = (1 - _TAIL ** (1 / k)) / float(_expected(whole, weights)[0])
        return Interval(estimate, max(-1.0, estimate - reach), 1.0)
    tail = NormalDist().cdf(math.sqrt(k / (k - 1)) * float(stdtrit(k - 1, _TAIL)))
    drawn = np.random.default_rng(seed).multinomial(k, np.full(k, 1 / k), size=_RESAMPLES)
    resampled = _kappas(np.tensordot(drawn, counts, axes=1), weights)
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(estimate, min(float(low), estimate), max(float(high), estimate))


def _distance(one: str, other: str, places: dict[str, float] | None) -> float:
    if one == other:
        return 0.0
    if places is None or one not in places or other not in places:
        return 1.0
    return (places[one] - places[other]) ** 2


def _kappas(counts: "NDArray[Any]", weights: "NDArray[Any]") -> "NDArray[Any]":
    """Kappa of each confusion matrix [resamples, words, words]; 0 where no disagreement can be expected."""
    import numpy as np

    observed = (counts * weights).sum(axis=(1, 2)) / counts.sum(axis=(1, 2))
    expected = _expected(counts, weights)
    kappas: NDArray[Any] = 1 - np.divide(observed, expected, out=np.ones_like(expected), where=expected > 0)
    return kappas


def _expected(counts: "NDArray[Any]", weights: "NDArray[Any]") -> "NDArray[Any]":
    total = counts.sum(axis=(1, 2))
    chance = counts.sum(axis=2)[:, :, None] * counts.sum(axis=1)[:, None, :] / (total * total)[:, None, None]
    expected: NDArray[Any] = (chance * weights).sum(axis=(1, 2))
    return expected
