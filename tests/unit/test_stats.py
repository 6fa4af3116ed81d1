"""The statistics give numbers only where numbers mean something, and then the right ones."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals import stats
from evals.stats import (
    MIN_CLUSTERS,
    Score,
    StatsError,
    cluster_interval,
    holm,
    mean,
    paired_differences,
    sign_flip_p,
    wilson,
)

shares = st.floats(0, 1)


def scores(values: list[float], clusters: int = 10) -> list[Score]:
    return [Score(f"i{n:03d}", f"c{n % clusters}", value) for n, value in enumerate(values)]


@settings(deadline=None)  # the first example pays for the imports
@given(st.lists(st.tuples(shares, shares), min_size=20, max_size=60), st.randoms())
def test_the_interval_holds_the_estimate_and_does_not_depend_on_order(pairs, random):
    before, after = scores([b for b, _ in pairs]), scores([a for _, a in pairs])
    interval = cluster_interval(paired_differences(before, after), resamples=1000)
    assert -1 <= interval.low <= interval.estimate <= interval.high <= 1
    assert interval.estimate == pytest.approx(mean(after) - mean(before))
    random.shuffle(before)
    random.shuffle(after)
    assert cluster_interval(paired_differences(before, after), resamples=1000) == interval


@settings(deadline=None)  # the first example pays for the imports
@given(st.lists(st.tuples(shares, shares), min_size=20, max_size=40))
def test_swapping_the_sides_mirrors_the_effect(pairs):
    before, after = scores([b for b, _ in pairs]), scores([a for _, a in pairs])
    there, back = paired_differences(before, after), paired_differences(after, before)
    assert [d.value for d in there] == [-d.value for d in back]
    assert sign_flip_p(there) == sign_flip_p(back)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1])
def test_a_score_that_is_no_share_is_an_error(value):
    bad = scores([1.0] * 19 + [value])
    for statistic in (mean, wilson, lambda s: paired_differences(s, s)):
        with pytest.raises(StatsError, match="i019"):
            statistic(bad)


def test_a_repeated_item_is_an_error():
    twice = scores([1.0] * 20) + scores([0.0])
    with pytest.raises(StatsError, match="i000 is scored twice"):
        mean(twice)
    with pytest.raises(StatsError, match="twice"):
        cluster_interval(twice)


def test_unpaired_sides_are_an_error():
    with pytest.raises(StatsError, match="i019"):
        paired_differences(scores([1.0] * 19), scores([1.0] * 20))
    with pytest.raises(StatsError, match="another cluster"):
        paired_differences(scores([1.0] * 20, clusters=10), scores([1.0] * 20, clusters=9))
    with pytest.raises(StatsError, match="no scores"):
        paired_differences([], [])


def test_few_clusters_tell_little_however_many_items_they_have():
    """One cluster of a hundred items that all gained: nothing is shown. Seven: no more than seven items show."""
    assert cluster_interval(scores([1.0] * 100, clusters=1)).low < -0.9
    many = cluster_interval(scores([1.0] * 70, clusters=MIN_CLUSTERS - 1))
    few = cluster_interval(scores([1.0] * 7, clusters=MIN_CLUSTERS - 1))
    assert many.low == pytest.approx(few.low)
    assert many.low == pytest.approx(1 - 2 * (1 - 0.025 ** (1 / 7)), abs=0.02)


def test_one_large_cluster_is_not_made_up_for_by_small_ones():
    """A hundred items of one persona gained, and of eleven others with one item each half did."""
    large = [Score(f"l{n}", "large", 1.0) for n in range(100)]
    small = [Score(f"s{n}", f"c{n}", float(n % 2)) for n in range(11)]
    assert cluster_interval(large + small).low < 0


def test_equal_differences_do_not_make_certainty():
    """Nothing to resample: with 20 clusters, up to 17 % may differ unseen."""
    interval = cluster_interval(scores([0.0] * 40, clusters=20))
    assert interval == (0.0, pytest.approx(-0.168, abs=5e-3), pytest.approx(0.168, abs=5e-3))
    assert cluster_interval(scores([1.0] * 40, clusters=20)).high == 1.0


@pytest.mark.parametrize("values", [[n % 3 - 1.0 for n in range(60)], [math.sin(n) for n in range(60)]])
def test_how_much_is_drawn_at_once_changes_nothing(values, monkeypatch):
    """Neither where clusters are alike nor where each differs from the others."""
    whole = cluster_interval(scores(values, clusters=30), resamples=1000), sign_flip_p(scores(values, clusters=30))
    monkeypatch.setattr(stats, "_BLOCK", 700)
    parts = cluster_interval(scores(values, clusters=30), resamples=1000), sign_flip_p(scores(values, clusters=30))
    assert parts == (pytest.approx(whole[0], rel=1e-12), whole[1])


def test_items_of_one_cluster_count_less_than_independent_ones():
    values = [float(n % 12 < 6) for n in range(72)]
    alike = [Score(f"i{n}", f"c{n % 12}", value) for n, value in enumerate(values)]
    apart = [Score(f"i{n}", f"c{n}", value) for n, value in enumerate(values)]

    def width(these: list[Score]) -> float:
        interval = cluster_interval(these)
        return interval.high - interval.low

    assert width(alike) > 2 * width(apart)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """24 clusters of 3 items with a shared effect, 400 worlds: a 95 % interval may miss in 3 to 8 % of them."""
    random = np.random.default_rng(3)
    covered = 0
    for world in range(400):
        tilt = random.beta(2, 2, size=24)  # mean 0.5 for each cluster: the true mean difference is 0.5
        differences = [
            Score(f"{c}-{n}", f"c{c}", float(random.random() < tilt[c])) for c in range(24) for n in range(3)
        ]
        interval = cluster_interval(differences, resamples=1000, seed=world)
        covered += interval.low <= 0.5 <= interval.high
    assert 0.92 <= covered / 400 <= 0.97


def test_wilson_against_the_published_example():
    """Newcombe 1998 (Statistics in Medicine 17:857), table I: 81 of 263 and 0 of 20."""
    share = wilson(scores([1.0] * 81 + [0.0] * 182))
    assert (share.low, share.high) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))
    none = wilson(scores([0.0] * 20))
    assert (none.low, none.high) == (0.0, pytest.approx(0.1611, abs=1e-4))


@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_wilson_stays_within_bounds(flags):
    share = wilson(scores([float(flag) for flag in flags]))
    assert 0 <= share.low <= share.estimate <= share.high <= 1


def test_sign_flips_are_exact_for_few_clusters():
    """Ten clusters that all rose: 2 of the 1024 sign patterns are as extreme."""
    assert sign_flip_p(scores([1.0] * 10, clusters=10)) == 2 / 1024


def test_sign_flips_never_say_impossible():
    assert 0 < sign_flip_p(scores([1.0] * 40, clusters=40)) <= 0.001
    assert sign_flip_p(scores([0.0] * 40, clusters=40)) == 1.0


def test_holm_by_hand():
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


@given(st.dictionaries(st.text(min_size=1), shares, min_size=1, max_size=12))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values):
    adjusted = holm(p_values)
    assert all(p_values[name] <= adjusted[name] <= 1 for name in p_values)
    ranked = sorted(p_values, key=lambda name: p_values[name])
    assert [adjusted[name] for name in ranked] == sorted(adjusted.values())


def test_holm_refuses_what_is_no_probability():
    with pytest.raises(StatsError, match="a has"):
        holm({"a": math.nan})
