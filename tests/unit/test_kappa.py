"""Kappa is scikit-learn's; its interval is honest where there is nothing to resample, and covers in simulation."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from evals.kappa import Pair, cohens_kappa
from evals.stats import StatsError

STEPS = {"1": 0.0, "2": 0.25, "3": 0.5, "4": 0.75, "5": 1.0}


def pairs(labels: list[str], verdicts: list[str], of: int = 1) -> list[Pair]:
    return [Pair(str(n // of), label, verdict) for n, (label, verdict) in enumerate(zip(labels, verdicts, strict=True))]


rated = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["a", "b", "c", "failed"])), min_size=8, max_size=60)


@settings(max_examples=50)
@given(rated)
def test_kappa_is_that_of_the_reference(ratings):
    labels, verdicts = zip(*ratings, strict=True)
    if len(set(labels)) < 2:
        with pytest.raises(StatsError, match="same label"):
            cohens_kappa(pairs(labels, verdicts))
        return
    found = cohens_kappa(pairs(labels, verdicts))
    assert found.estimate == pytest.approx(cohen_kappa_score(labels, verdicts), abs=1e-12)
    assert -1 <= found.low <= found.estimate <= found.high <= 1 + 1e-12


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(list(STEPS)), st.sampled_from(list(STEPS))), min_size=8, max_size=60))
def test_on_a_scale_it_is_that_of_the_reference_with_quadratic_weights(ratings):
    labels, verdicts = zip(*ratings, strict=True)
    if len(set(labels)) < 2:
        return
    reference = cohen_kappa_score(labels, verdicts, weights="quadratic", labels=list(STEPS))
    assert cohens_kappa(pairs(labels, verdicts), STEPS).estimate == pytest.approx(reference, abs=1e-12)


def test_a_failure_is_never_better_than_a_wrong_verdict_on_a_scale():
    labels = [*"12345"] * 8
    wrong = ["3" if n == 2 else label for n, label in enumerate(labels)]
    near = ["4" if n == 2 else label for n, label in enumerate(labels)]
    failed = ["failed" if n == 2 else label for n, label in enumerate(labels)]
    assert cohens_kappa(pairs(labels, wrong), STEPS).estimate == 1
    kappas = [cohens_kappa(pairs(labels, verdicts), STEPS).estimate for verdicts in (near, failed)]
    assert kappas[0] > kappas[1]


def test_full_agreement_claims_no_more_than_its_number_of_items_can_show():
    few, many = (cohens_kappa(pairs([*"ab"] * n, [*"ab"] * n)) for n in (5, 200))
    assert few.estimate == many.estimate == 1
    assert few.low < 0.5 < 0.95 < many.low < 1


def test_a_judge_that_always_says_the_same_shows_nothing():
    assert cohens_kappa(pairs([*"aab"] * 20, ["a"] * 60)) == (0, 0, 0)


def test_items_of_one_cluster_do_not_narrow_the_interval():
    draw = random.Random(1)
    labels = [draw.choice("ab") for _ in range(30)]
    verdicts = [label if draw.random() < 0.8 else "a" for label in labels]
    once = cohens_kappa(pairs(labels, verdicts))
    repeated = cohens_kappa(pairs([x for x in labels for _ in range(4)], [x for x in verdicts for _ in range(4)], of=4))
    assert repeated == pytest.approx(once)


def test_too_few_clusters_are_an_error():
    with pytest.raises(StatsError, match="7 clusters are too few"):
        cohens_kappa(pairs([*"ab"] * 7, [*"ab"] * 7, of=2))


def test_the_interval_covers_the_true_kappa_about_as_often_as_it_says():
    """60 items, a judge that is right with probability 0.8 on two even labels: true kappa 0.6."""
    draw, hits = random.Random(7), 0
    for _ in range(100):
        labels = [draw.choice("ab") for _ in range(60)]
        verdicts = [label if draw.random() < 0.8 else "ab"[label == "a"] for label in labels]
        found = cohens_kappa(pairs(labels, verdicts))
        hits += found.low <= 0.6 <= found.high
    assert hits >= 88
