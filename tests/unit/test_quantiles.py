"""Quantiles of times: the interval says what the gate's ceilings would."""

import math

import pytest

from evals import stats
from evals.criteria import bound
from evals.policy import Criterion, GatePolicy
from evals.quantiles import quantile
from evals.stats import Score, StatsError

POLICY = GatePolicy(name="p", resamples=2000, criteria=(Criterion(name="any", kind="floor", suite="s", margin=0.5),))


def times(values: list[float], per_round: int = 4) -> list[Score]:
    return [Score(f"q{n}", f"round-{n // per_round}", value) for n, value in enumerate(values)]


def test_the_estimate_is_the_least_time_that_the_share_does_not_exceed():
    found = [quantile(times([float(n) for n in range(1, 101)]), share, 0.95, 2000) for share in (0.5, 0.95)]
    assert [each.estimate for each in found] == [50, 95]
    assert all(each.low < each.estimate < each.high for each in found)
    assert quantile(times([5.0] * 100), 0.5, 0.95, 2000) == (5, 5, 5)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_ceiling_on_what_is_slower_passes_just_where_the_interval_lies_below(share):
    asked = times([1 + math.sin(n) ** 2 for n in range(120)])
    found = quantile(asked, share, 0.95, 2000)
    assert math.isfinite(found.high)
    for limit in sorted(each.value for each in asked):
        slower = [each._replace(value=float(each.value > limit)) for each in asked]
        criterion = Criterion(name="late", kind="ceiling", suite="s", metric="slow", margin=1 - share)
        passes = bound(criterion, POLICY, slower).effect.low > 0
        assert passes == (limit >= found.high) or abs(limit - found.high) < 0.01  # both are drawn, from other patterns


def test_what_too_few_tell_is_unbounded():
    few = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7]
    assert quantile(times(few), 0.95, 0.95, 2000) == (1.7, 1.3, math.inf)
    assert quantile(times(few), 0.05, 0.95, 2000) == (1.0, 0.0, 1.4)


def test_a_request_without_an_answer_is_never_in_time():
    asked = times([1.0] * 10 + [math.inf] * 30)
    assert quantile(asked, 0.5, 0.95, 2000).estimate == math.inf
    assert stats.mean([each._replace(value=float(each.value <= 1)) for each in asked]) == 0.25


@pytest.mark.parametrize("value", [math.nan, -1.0])
def test_what_is_no_time_is_an_error(value):
    with pytest.raises(StatsError, match="q1 took no time"):
        quantile(times([1.0, value]), 0.5, 0.95)
    with pytest.raises(StatsError, match="twice"):
        quantile([Score("a", "c", 1.0)] * 2, 0.5, 0.95)
    with pytest.raises(StatsError, match="no scores"):
        quantile([], 0.5, 0.95)
