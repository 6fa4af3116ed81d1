"""What is watched live raises no more false alarms than it may, however often it is looked at."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.sequential import differences, log_e_at_least, log_e_at_most, log_e_no_worse
from evals.stats import StatsError

LIMIT = math.log(1 / 0.05)
values = st.lists(st.floats(0, 1), max_size=60)


@pytest.mark.parametrize(("rate", "bound"), [(0.3, 0.3), (0.9, 0.9), (0.5, 0.4)])
def test_on_average_there_is_no_evidence_against_what_is_true(rate, bound):
    """Over all 1024 streams of ten requests: the e-value's mean is 1 at the bound itself, and less beyond it."""
    mean = sum(
        rate ** sum(stream) * (1 - rate) ** (10 - sum(stream)) * math.exp(log_e_at_least(stream, bound))
        for stream in itertools.product((0, 1), repeat=10)
    )
    assert mean == pytest.approx(1) if rate == bound else mean < 1


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_looking_all_the_time_raises_few_false_alarms(rate):
    """300 streams of 200 requests at the limit itself, stopped at the first alarm: at most 5 % may have one."""
    streams = (np.random.default_rng(1).random((300, 200)) < rate).astype(float)
    alarms = sum(any(log_e_at_most(stream[:n], rate) >= LIMIT for n in range(4, 201, 4)) for stream in streams)
    assert alarms / 300 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300)


def test_drifting_traffic_that_follows_the_outcomes_raises_few_false_alarms():
    """Both releases get worse through the day, and the challenger gets more traffic while it looks good."""
    random = np.random.default_rng(2)
    alarms = 0
    for _ in range(200):
        outcomes: list[tuple[bool, float]] = []
        share = 0.1
        for request in range(150):
            good = float(random.random() < 0.95 - request / 300)
            outcomes.append((bool(random.random() < share), good))
            share = 0.5 if good else 0.1
        found = differences(outcomes)
        alarms += any(log_e_no_worse(found[:n]) >= LIMIT for n in range(1, len(found) + 1))
    assert alarms / 200 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 200)


def test_each_answer_of_the_challenger_is_held_against_the_champions_since():
    stream = [(False, 1.0), (False, 0.0), (True, 1.0), (True, 0.0), (True, 1.0), (False, 1.0), (False, 1.0)]
    assert differences(stream) == [0.5, -0.5]


def test_a_challenger_that_is_worse_is_found_out_soon():
    worse = [-1.0, 0.0, 0.0, -1.0, 0.0, 0.0] * 10
    assert log_e_no_worse(worse) >= LIMIT
    assert log_e_no_worse(worse, margin=0.4) < LIMIT
    assert log_e_at_least([0.0] * 4, 0.9) >= LIMIT
    assert log_e_at_most([1.0, 0.0] * 20, 0.1) >= LIMIT


@settings(max_examples=40, deadline=None)
@given(values, st.floats(0, 0.5))
def test_a_wider_margin_needs_more_evidence(seen, margin):
    signed = [2 * value - 1 for value in seen]
    assert log_e_no_worse(signed, margin) <= log_e_no_worse(signed) + 1e-9


def test_nothing_seen_tells_nothing():
    assert log_e_at_least([], 0.5) == pytest.approx(0)


@pytest.mark.parametrize(("seen", "bound"), [([2.0], 0.5), ([math.nan], 0.5), ([0.5], 1.0), ([0.5], 0.0)])
def test_what_is_no_share_is_refused(seen, bound):
    with pytest.raises(StatsError):
        log_e_at_least(seen, bound)
