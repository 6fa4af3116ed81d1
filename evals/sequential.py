"""Anytime-valid tests for what is watched live: they may be looked at after every request and stopped at
any time, for any reason, without more false alarms than alpha.

A gambler bets on each value before it is seen, at odds that are fair if the mean is the claimed one. Then the wealth
does not grow on average, and ever exceeds 1 / alpha with probability at most alpha (Ville 1939): it is an e-value
against the claim. The wealth here is the mean of many gamblers', each of whom always stakes the same share
(Waudby-Smith & Ramdas 2024, doi:10.1093/jrsssb/qkad009, "diversified Kelly betting"). Rates may drift: the claim is
only that the mean keeps to the bound at every request, given those before.
"""

import math
from collections.abc import Iterable, Sequence

from evals.stats import StatsError

_STAKES = 40


def log_e_at_least(values: Sequence[float], bound: float) -> float:
    """Log e-value against "the mean of these values in [0, 1] is at least ``bound``", such as the share of valid
    answers that a canary must have. Above log(1 / alpha): reject. Raises `StatsError` for a bound that is not within
    (0, 1)."""
    import numpy as np

    seen = np.asarray(values, dtype=float)
    if not 0 < bound < 1:
        raise StatsError(f"the bound is {bound}, which is not between 0 and 1")
    if not np.all((seen >= 0) & (seen <= 1)):
        raise StatsError("a value is not in [0, 1]")
    # Shares of what may be staked: more of the small ones, which small effects need.
    stakes = (np.arange(1, _STAKES + 1) / (_STAKES + 1)) ** 2
    growth = np.log1p(np.outer(stakes, (bound - seen) / (1 - bound))).sum(axis=1)
    return float(np.logaddexp.reduce(growth) - math.log(_STAKES))


def log_e_at_most(values: Sequence[float], bound: float) -> float:
    """Log e-value against "the mean is at most ``bound``", such as the share of errors that a canary may have."""
    return log_e_at_least([1 - value for value in values], 1 - bound)


def differences(outcomes: Iterable[tuple[bool, float]]) -> list[float]:
    """Challenger minus champion, in [-1, 1], from live traffic in its order: (whether the challenger answered, score in
    [0, 1]). Each answer of the challenger is held against the mean of the champion's since the last one that was, so
    that what moves both leaves no trace. Who answers must be drawn without regard to the request."""
    found: list[float] = []
    champion: list[float] = []
    waiting: list[float] = []
    for challenger, score in outcomes:
        (waiting if challenger else champion).append(score)
        if waiting and champion:
            found.append(math.fsum(waiting) / len(waiting) - math.fsum(champion) / len(champion))
            champion, waiting = [], []
    return found


def log_e_no_worse(differences: Sequence[float], margin: float = 0.0) -> float:
    """Log e-value against "the challenger loses no more than ``margin`` to the champion", a margin in [0, 1)."""
    return log_e_at_least([(1 + each) / 2 for each in differences], (1 - margin) / 2)


def log_e_within(differences: Sequence[float], margin: float) -> float:
    """Log e-value against "the challenger loses ``margin`` or more to the champion", a margin in (0, 1)."""
    return log_e_at_most([(1 + each) / 2 for each in differences], (1 - margin) / 2)
