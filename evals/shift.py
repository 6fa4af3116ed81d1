"""Is what comes now what came before? Statistics of two samples, and of a series that is looked at again and again.

All scores grow with the evidence: a p-value is told as -log10 of it.
"""

from collections.abc import Mapping, Sequence
from math import asin, exp, lgamma, log, log10, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def psi(reference: Mapping[str, int], current: Mapping[str, int]) -> float:
    """Population stability index: sum over categories of (q - p) ln(q / p), p and q the shares before and now.

    0.5 is added to each count (Jeffreys), so that a category seen on one side only stays finite. Symmetric, >= 0.
    """
    categories = sorted(set(reference) | set(current))
    p_total = sum(reference.values()) + 0.5 * len(categories)
    q_total = sum(current.values()) + 0.5 * len(categories)
    total = 0.0
    for category in categories:
        p = (reference.get(category, 0) + 0.5) / p_total
        q = (current.get(category, 0) + 0.5) / q_total
        total += (q - p) * log(q / p)
    return total


def more_often(reference: tuple[int, int], current: tuple[int, int]) -> float:
    """-log10 of the p-value of "hits are as likely now as before", against "more likely now". Counts are (hits, n).
    Fisher's exact test, whose p-value counts half of what is as likely as what was seen (Lancaster 1961)."""
    (before, m), (now, n) = reference, current
    if not m or not n or not before + now:
        return 0.0
    hits, most = before + now, min(before + now, n)
    likely = exp(_ways(hits, now) + _ways(m + n - hits, n - now) - _ways(m + n, n))
    p = likely / 2
    for k in range(now, most):  # how likely k + 1 hits are, from how likely k are
        likely *= (hits - k) * (n - k) / ((k + 1) * (m - hits + k + 1))
        p += likely
    return evidence(min(1.0, p))


def _ways(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def energy_p(
    reference: "NDArray[np.float32]", current: "NDArray[np.float32]", permutations: int = 999, seed: int = 0
) -> float:
    """P-value of "both samples come from one distribution" by the energy distance (Székely & Rizzo 2013,
    doi:10.1016/j.jspi.2013.03.018) over random permutations, of which the observed one is one. Samples are
    [texts, dimensions]; the least p-value is 1 / (1 + permutations)."""
    import numpy as np

    both = np.concatenate([reference, current]).astype(np.float64)
    squares = (both**2).sum(axis=1)
    apart = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * both @ both.T, 0))
    np.fill_diagonal(apart, 0)
    weights = np.concatenate([np.full(len(reference), 1 / len(reference)), np.full(len(current), -1 / len(current))])
    shuffled = np.random.default_rng(seed).permuted(np.tile(weights, (permutations, 1)), axis=1)
    distances = -np.einsum("ij,ij->i", shuffled @ apart, shuffled)
    return float((1 + np.sum(distances >= -(weights @ apart @ weights) - 1e-12)) / (1 + permutations))


def evidence(p: float) -> float:
    return -log10(max(p, 1e-300))


def rises(hits: Sequence[tuple[int, int]], slack: float = 0.5) -> list[float]:
    """A self-starting CUSUM (Hawkins 1987, doi:10.2307/2348827) of rates: after each (hits, n), how far they rose, in
    standard deviations of one window. Each is held against all that came before it, of which the first is the start:
    what is small and lasts adds up, whatever the rate was at the beginning. ``slack`` is what each has to exceed.

    Rates are made normal by the arcsine (Anscombe 1948, doi:10.1093/biomet/35.3-4.246).
    """
    sums: list[float] = []
    level, seen, n_seen = 0.0, 0, 0
    for count, n in hits:
        if n and n_seen:
            off = 2 * (_angle(count, n) - _angle(seen, n_seen)) / sqrt(1 / n + 1 / n_seen)
            level = max(0.0, level + off - slack)
        seen, n_seen = seen + count, n_seen + n
        sums.append(level)
    return sums


def _angle(hits: int, n: int) -> float:
    return asin(sqrt((hits + 0.375) / (n + 0.75)))
