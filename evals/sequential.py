"""Anytime-valid tests and intervals for rates that are watched live: they may be looked at after every request and
stopped at any time, for any reason, without more false alarms than alpha.

The evidence on one arm with s successes in n trials is a mixture martingale (Robbins 1970; Ville 1939): under a true
rate p, the Beta(1/2, 1/2) mixture of binomial likelihoods over the likelihood at p starts at 1 and never grows on
average, so that it ever exceeds 1 / alpha with probability at most alpha. It is the wealth of a gambler who bets on the
next outcome by the Krichevsky-Trofimov rule (Waudby-Smith & Ramdas 2024, doi:10.1093/jrsssb/qkad009). The product over
two arms is one too, whatever the order and the shares of the traffic, also when these follow the outcomes so far;
against a composite hypothesis its least value over the hypothesis is an e-value (Wasserman, Ramdas & Balakrishnan 2020,
doi:10.1073/pnas.1922664117; two streams: Turner & Grünwald 2023, doi:10.1016/j.spl.2023.109835). All depends on counts
alone, so that nothing has to be remembered between two looks.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from evals.stats import Interval, StatsError

_STEPS = 40
"""Halvings of an interval: to 1e-12."""


class Arm(NamedTuple):
    """What one release has done so far: requests, and how many of them were successes."""

    trials: int
    successes: int

    @property
    def rate(self) -> float:
        return self.successes / self.trials if self.trials else 0.5


def log_e_rate(arm: Arm, rate: float) -> float:
    """Log of the evidence against the rate being exactly this. Above log(1 / alpha): reject."""
    return _log_mixture(_checked(arm)) - _log_likelihood(arm, rate)


def log_e_at_least(arm: Arm, rate: float) -> float:
    """Log e-value against "the rate is this or higher", such as the share of good answers that a canary must have."""
    return log_e_rate(arm, max(rate, _checked(arm).rate))


def log_e_at_most(arm: Arm, rate: float) -> float:
    """Log e-value against "the rate is this or lower", such as the share of errors that a canary may have."""
    return log_e_rate(arm, min(rate, _checked(arm).rate))


def log_e_no_worse(champion: Arm, challenger: Arm, margin: float = 0.0) -> float:
    """Log e-value against "the challenger's rate is at least the champion's minus ``margin``". Above log(1 / alpha) it
    is worse by more than the margin. The likeliest pair of rates that the hypothesis allows decides."""
    return _log_e_pair(_checked(champion), _checked(challenger), margin)


def log_e_no_better(champion: Arm, challenger: Arm, margin: float = 0.0) -> float:
    """Log e-value against "the challenger's rate is at most the champion's plus ``margin``": then it is better."""
    return _log_e_pair(_checked(challenger), _checked(champion), margin)


def rate_sequence(arm: Arm, alpha: float = 0.05) -> Interval:
    """A rate with its confidence sequence: with probability 1 - alpha it covers the rate at all times at once."""
    limit, seen = _limit(alpha), _checked(arm).rate
    return Interval(
        seen,
        _edge(lambda rate: log_e_rate(arm, rate) < limit, seen, 0.0),
        _edge(lambda rate: log_e_rate(arm, rate) < limit, seen, 1.0),
    )


def difference_sequence(champion: Arm, challenger: Arm, alpha: float = 0.05) -> Interval:
    """Challenger's minus champion's rate with its confidence sequence, by the e-values of both directions at alpha."""
    limit, seen = _limit(alpha), _checked(challenger).rate - _checked(champion).rate
    return Interval(
        seen,
        _edge(lambda gap: log_e_no_better(champion, challenger, gap) < limit, seen, -1.0),
        _edge(lambda gap: log_e_no_worse(champion, challenger, -gap) < limit, seen, 1.0),
    )


def _log_e_pair(higher: Arm, lower: Arm, margin: float) -> float:
    """Against "the rate of ``lower`` is at least that of ``higher`` minus ``margin``", with a margin in [-1, 1]."""
    if not -1 <= margin <= 1:
        raise StatsError(f"the margin is {margin}, which is not in [-1, 1]")
    mixtures = _log_mixture(higher) + _log_mixture(lower)
    if higher.rate - lower.rate <= margin:
        return mixtures - _log_likelihood(higher, higher.rate) - _log_likelihood(lower, lower.rate)
    one, other = higher.trials - higher.successes, lower.trials - lower.successes

    def rising(rate: float) -> bool:
        """Whether the likelihood of both, ``margin`` apart, grows with the rate; it is concave."""
        rises = _over(higher.successes, rate) + _over(lower.successes, rate - margin)
        return rises > _over(one, 1 - rate) + _over(other, 1 - rate + margin)

    likeliest = _edge(rising, max(0.0, margin), min(1.0, 1 + margin))
    return mixtures - _log_likelihood(higher, likeliest) - _log_likelihood(lower, likeliest - margin)


def _log_mixture(arm: Arm) -> float:
    s, f = arm.successes + 0.5, arm.trials - arm.successes + 0.5
    return math.lgamma(s) + math.lgamma(f) - math.lgamma(s + f) - math.log(math.pi)


def _log_likelihood(arm: Arm, rate: float) -> float:
    """Of this very order of outcomes; minus infinity where the rate cannot give them."""
    total = 0.0
    for count, share in ((arm.successes, rate), (arm.trials - arm.successes, 1 - rate)):
        if count:
            total += count * math.log(share) if share > 0 else -math.inf
    return total


def _over(count: int, share: float) -> float:
    """Count by share; a share that rounding made 0 is no place for any count."""
    return count / share if share > 0 else math.inf if count else 0.0


def _edge(inside: Callable[[float], bool], start: float, end: float) -> float:
    """How far from ``start`` towards ``end`` a set without holes reaches; ``start`` counts as inside."""
    for _ in range(_STEPS):
        middle = (start + end) / 2
        start, end = (middle, end) if inside(middle) else (start, middle)
    return end


def _limit(alpha: float) -> float:
    if not 0 < alpha < 1:
        raise StatsError(f"alpha is {alpha}, which is not between 0 and 1")
    return -math.log(alpha)


def _checked(arm: Arm) -> Arm:
    if not 0 <= arm.successes <= arm.trials:
        raise StatsError(f"{arm.successes} successes of {arm.trials} trials cannot be")
    return arm
