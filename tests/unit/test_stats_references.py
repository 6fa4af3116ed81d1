"""The statistics agree with scipy's and statsmodels' on the same data."""

import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from evals.shift import energy_p, more_often, rises
from evals.stats import Score, cluster_difference, cluster_share, holm, sign_flip_p, wilson


def each_its_own(values) -> list[Score]:
    return [Score(f"i{n:04d}", f"c{n:04d}", float(value)) for n, value in enumerate(values)]


@settings(deadline=None)
@given(st.integers(1, 400), st.data())
def test_wilson(n, data):
    ones = data.draw(st.integers(0, n))
    share = wilson(each_its_own([1.0] * ones + [0.0] * (n - ones)))
    low, high = proportion_confint(ones, n, method="wilson")
    assert (share.low, share.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
    reference = scipy_stats.binomtest(ones, n).proportion_ci(method="wilson")
    assert (share.low, share.high) == (pytest.approx(reference.low, abs=1e-9), pytest.approx(reference.high, abs=1e-9))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm(p_values):
    names = [f"h{n}" for n in range(len(p_values))]
    adjusted = holm(dict(zip(names, p_values, strict=True)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "collect", lambda: 0)  # the reference collects all garbage at each call
        expected = multipletests(p_values, method="holm")[1]
    assert [adjusted[name] for name in names] == pytest.approx(list(expected))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), min_size=2, max_size=10))
def test_exact_sign_flips_are_the_permutation_test_of_pairs(values):
    found = scipy_stats.permutation_test(
        (np.array(values),), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert sign_flip_p(each_its_own(values)) == pytest.approx(min(1.0, found.pvalue))


@pytest.mark.parametrize(("ones", "n"), [(0, 12), (1, 20), (17, 20), (40, 80), (100, 100)])
def test_shares_of_single_items_have_clopper_and_pearsons_interval(ones, n):
    found = cluster_share(each_its_own([1] * ones + [0] * (n - ones)), resamples=100_000).interval(0.95)
    low, high = proportion_confint(ones, n, method="beta")
    assert (found.low, found.high) == (pytest.approx(low, abs=4e-3), pytest.approx(high, abs=4e-3))


@pytest.mark.parametrize("bound", [0.3, 0.5, 0.62])
def test_p_values_of_shares_are_those_of_the_binomial_test(bound):
    found = cluster_share(each_its_own([1] * 40 + [0] * 40), resamples=100_000)
    less = scipy_stats.binomtest(40, 80, bound, alternative="less").pvalue
    greater = scipy_stats.binomtest(40, 80, bound, alternative="greater").pvalue
    assert found.p_at_least(bound) == pytest.approx(less, abs=4e-3)
    assert found.p_at_most(bound) == pytest.approx(greater, abs=4e-3)


def test_many_clusters_have_the_interval_of_t_and_of_the_bootstrap():
    random = np.random.default_rng(5)
    values = np.clip(random.normal(0.05, 0.2, 2000), -1, 1)
    found = cluster_difference(each_its_own(values)).interval(0.95)
    student = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    bca = scipy_stats.bootstrap((values,), np.mean, n_resamples=5000, rng=random).confidence_interval
    for low, high in (student, bca):
        assert (found.low, found.high) == (pytest.approx(low, abs=3e-3), pytest.approx(high, abs=3e-3))


def test_clusters_have_the_interval_of_t_over_their_means():
    """150 clusters of 4 items with a shared effect; over items it would be a third narrower."""
    random = np.random.default_rng(6)
    shared = random.normal(0.1, 0.2, (150, 1))
    values = np.clip(shared + random.normal(0, 0.2, (150, 4)), -1, 1)
    scores = [Score(f"{c}-{i}", f"c{c}", float(values[c, i])) for c in range(150) for i in range(4)]
    found = cluster_difference(scores).interval(0.95)
    low, high = scipy_stats.ttest_1samp(values.mean(axis=1), 0).confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))
    naive = scipy_stats.ttest_1samp(values.ravel(), 0).confidence_interval(0.95)
    assert found.high - found.low > 1.3 * (naive.high - naive.low)


@pytest.mark.parametrize("clusters", [3, 5, 7])
def test_the_p_value_of_a_total_loss_is_the_least_that_can_be(clusters):
    """A world whose mean is at the bound, all lost in 55 % of clusters and all gained in the others, gives such data
    with this probability."""
    found = cluster_difference(each_its_own([-1.0] * clusters), resamples=100_000)
    assert found.p_at_least(-0.1) == pytest.approx(0.55**clusters, abs=4e-3)
    assert cluster_share(each_its_own([0.0] * clusters)).p_at_least(0.8) == pytest.approx(0.2**clusters, abs=4e-3)


@given(st.integers(1, 200), st.integers(1, 200), st.data())
def test_more_often_is_fishers_test_with_half_of_what_is_as_likely(m, n, data):
    before, now = data.draw(st.integers(0, m)), data.draw(st.integers(0, n))
    drawn = scipy_stats.hypergeom(m + n, before + now, n)
    p = 10 ** -more_often((before, m), (now, n))
    assert p == pytest.approx(1.0 if not before + now else drawn.sf(now) + 0.5 * drawn.pmf(now), rel=1e-6, abs=1e-12)


def test_the_energy_distance_finds_another_distribution_and_holds_its_level():
    dice = np.random.default_rng(1)
    same = [energy_p(*dice.normal(size=(2, 30, 8)), permutations=99) for _ in range(200)]
    assert 0.02 <= np.mean([p <= 0.05 for p in same]) <= 0.09
    one, other = dice.normal(size=(40, 8)), dice.normal(0.8, 1, size=(40, 8))
    assert energy_p(one, other) == 0.001
    assert energy_p(one, other) == energy_p(one, other)


def test_a_self_starting_cusum_waits_for_a_rise_and_not_for_a_level():
    assert max(rises([(6, 200)] * 60)) == 0
    assert max(rises([(60, 200)] * 60)) == 0
    dice = np.random.default_rng(2)
    calm = [max(rises([(int(hits), 200) for hits in dice.binomial(200, 0.03, 60)])) for _ in range(200)]
    risen = [max(rises([(int(dice.binomial(200, 0.03 + i / 500)), 200) for i in range(40)])) for _ in range(50)]
    assert np.quantile(calm, 0.98) < 10 < np.quantile(risen, 0.02)
