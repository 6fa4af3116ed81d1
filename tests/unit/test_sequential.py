"""A rate that is watched live raises no more false alarms than it may, however often it is looked at."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.sequential import (
    Arm,
    difference_sequence,
    log_e_at_least,
    log_e_at_most,
    log_e_no_better,
    log_e_no_worse,
    log_e_rate,
    rate_sequence,
)
from evals.stats import StatsError

LIMIT = math.log(1 / 0.05)


@st.composite
def arms(draw) -> Arm:
    trials = draw(st.integers(0, 200))
    return Arm(trials, draw(st.integers(0, trials)))


def test_one_more_outcome_never_grows_the_evidence_on_average():
    """A martingale under the very rate: what the next outcome adds and takes is the same, from any counts."""
    for trials, successes, rate in [(0, 0, 0.3), (10, 9, 0.3), (50, 1, 0.9), (200, 100, 0.5)]:
        now = math.exp(log_e_rate(Arm(trials, successes), rate))
        up = math.exp(log_e_rate(Arm(trials + 1, successes + 1), rate))
        down = math.exp(log_e_rate(Arm(trials + 1, successes), rate))
        assert rate * up + (1 - rate) * down == pytest.approx(now)


@pytest.mark.parametrize("rate", [0.02, 0.5, 0.9])
def test_looking_after_every_request_raises_few_false_alarms(rate):
    """1000 streams of 300 requests under the limit itself, stopped at the first alarm: at most 5 % may have one."""
    seen = (np.random.default_rng(1).random((1000, 300)) < rate).cumsum(axis=1)
    alarms = {
        (n, s): log_e_at_most(Arm(n, s), rate) >= LIMIT or log_e_at_least(Arm(n, s), rate) >= LIMIT
        for n in range(1, 301)
        for s in range(n + 1)
    }
    stopped = np.mean([any(alarms[n, s] for n, s in enumerate(stream, start=1)) for stream in seen.tolist()])
    assert stopped <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 1000)


def test_looking_at_two_arms_all_the_time_raises_few_false_alarms():
    """Traffic shifts to the challenger while that looks good, which is what tempts to stop early."""
    random = np.random.default_rng(2)
    alarms = 0
    for _ in range(200):
        champion = challenger = Arm(0, 0)
        for _ in range(150):
            good = int(random.random() < 0.8)
            if random.random() < (0.5 if challenger.rate >= champion.rate else 0.1):
                challenger = Arm(challenger.trials + 1, challenger.successes + good)
            else:
                champion = Arm(champion.trials + 1, champion.successes + good)
            if log_e_no_worse(champion, challenger) >= LIMIT:
                alarms += 1
                break
    assert alarms / 200 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 200)


def test_a_challenger_that_is_worse_is_found_out_soon():
    assert log_e_no_worse(Arm(60, 57), Arm(60, 30)) >= LIMIT
    assert log_e_no_worse(Arm(60, 57), Arm(60, 30), margin=0.4) < LIMIT
    assert log_e_no_better(Arm(60, 30), Arm(60, 57)) >= LIMIT
    assert log_e_at_least(Arm(12, 0), 0.9) >= LIMIT
    assert log_e_at_most(Arm(100, 30), 0.1) >= LIMIT


@settings(max_examples=30, deadline=None)
@given(arms(), arms())
def test_the_sequences_hold_what_was_seen_and_mirror_each_other(champion, challenger):
    rate, there, back = (
        rate_sequence(champion),
        difference_sequence(champion, challenger),
        difference_sequence(challenger, champion),
    )
    assert 0 <= rate.low <= rate.estimate <= rate.high <= 1
    assert -1 <= there.low <= there.estimate <= there.high <= 1
    assert (back.low, back.high) == (pytest.approx(-there.high, abs=1e-6), pytest.approx(-there.low, abs=1e-6))


@given(arms(), arms(), st.floats(0, 0.5))
def test_a_wider_margin_needs_more_evidence(champion, challenger, margin):
    assert log_e_no_worse(champion, challenger, margin) <= log_e_no_worse(champion, challenger) + 1e-9


def test_the_interval_is_where_the_evidence_reaches_its_limit():
    champion, challenger = Arm(100, 90), Arm(80, 50)
    found = difference_sequence(champion, challenger)
    assert log_e_no_better(champion, challenger, found.low) == pytest.approx(LIMIT, abs=1e-6)
    assert log_e_no_worse(champion, challenger, -found.high) == pytest.approx(LIMIT, abs=1e-6)
    alone = rate_sequence(champion)
    assert log_e_rate(champion, alone.low) == pytest.approx(LIMIT, abs=1e-6)


def test_nothing_seen_tells_nothing():
    assert difference_sequence(Arm(0, 0), Arm(0, 0)) == (0.0, -1.0, 1.0)
    assert rate_sequence(Arm(0, 0)) == (0.5, 0.0, 1.0)


def test_what_cannot_be_is_refused():
    with pytest.raises(StatsError, match="5 successes of 4"):
        rate_sequence(Arm(4, 5))
    with pytest.raises(StatsError, match="alpha"):
        rate_sequence(Arm(4, 2), alpha=0)
    with pytest.raises(StatsError, match="margin"):
        log_e_no_worse(Arm(4, 2), Arm(4, 2), margin=-2)
