"""The rule by which the technique desk recommends: the cheapest of those that are no worse than the best."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.recommend import ALIKE, TECHNIQUES, Choice, Rival, Technique, overall, payback, recommend
from evals.stats import Interval

MARGIN = 0.1


def rivals(
    quality: Mapping[Technique, float], cost: Mapping[Technique, float], width: float = 0.0, barred: str = ""
) -> list[Rival]:
    """With differences known to within ``width`` on either side."""
    return [
        Rival(
            name,
            Interval(mean, max(0.0, mean - width), min(1.0, mean + width)),
            {o: Interval(mean - q, mean - q - width, mean - q + width) for o, q in quality.items() if o != name},
            cost[name],
            barred if name == "fine-tuned" else "",
        )
        for name, mean in quality.items()
    ]


def by_name(*values: float) -> dict[Technique, float]:
    return dict(zip(TECHNIQUES, values, strict=True))


shares = st.tuples(*[st.floats(0, 1)] * 4).map(lambda values: by_name(*values))
costs = st.tuples(*[st.floats(0.1, 100)] * 4).map(lambda values: by_name(*values))
widths = st.floats(0, 0.5)
barring = st.sampled_from(["", "facts change too fast"])


def test_the_cheapest_that_is_no_worse_is_taken():
    found = recommend(rivals(by_name(0.2, 0.55, 0.85, 0.9), by_name(1, 2, 3, 9), 0.04), MARGIN, 0.5)
    assert (found.decision, found.technique, found.fit) == ("recommend", "retrieval", ("retrieval", "fine-tuned"))
    standings = {"prompt": "worse", "shots": "worse", "retrieval": "will do", "fine-tuned": "will do"}
    assert found.standings == standings
    assert "retrieval -0.050 [-0.090, -0.010] against fine-tuned: will do" in found.reasons


def test_a_barred_technique_is_not_taken_however_good_and_cheap():
    found = recommend(rivals(by_name(0.2, 0.3, 0.6, 1.0), by_name(5, 5, 5, 1), 0.05, "facts change"), MARGIN, 0.5)
    assert (found.technique, found.standings["fine-tuned"]) == ("retrieval", "barred")
    assert found.reasons[0] == "fine-tuned is out: facts change"


def test_a_cheaper_one_of_which_the_intervals_do_not_tell_leaves_it_open():
    found = recommend(rivals(by_name(0.75, 0.2, 0.2, 0.9), by_name(1, 2, 3, 9), 0.2), MARGIN, 0.5)
    assert (found.decision, found.technique) == ("inconclusive", "fine-tuned")
    assert found.reasons[-1].startswith("whether prompt would do is not told")
    dearer = recommend(rivals(by_name(0.75, 0.2, 0.2, 0.9), by_name(10, 2, 3, 9), 0.2), MARGIN, 0.5)
    assert (dearer.decision, dearer.technique) == ("recommend", "fine-tuned")


def test_a_best_that_others_may_beat_by_more_than_the_margin_is_not_recommended():
    found = recommend(rivals(by_name(0.7, 0.69, 0.2, 0.2), by_name(1, 2, 3, 4), 0.15), MARGIN, 0.5)
    assert (found.decision, found.technique, found.fit) == ("inconclusive", "prompt", ())
    assert "whether prompt, shots would do is not told" in found.reasons[-1]


def test_nothing_is_recommended_where_the_best_is_too_bad():
    found = recommend(rivals(by_name(0.1, 0.1, 0.2, 0.3), by_name(1, 2, 3, 4), 0.1), MARGIN, 0.5)
    assert (found.decision, found.technique, found.fit) == ("none", None, ())
    assert found.reasons[-1].endswith("that is below 0.5: none will do")


def test_of_costs_that_are_alike_the_simplest_is_taken():
    alike = by_name(1.05, 1.0, 1.1, 0.99)
    assert recommend(rivals(by_name(0.9, 0.9, 0.9, 0.9), alike), MARGIN, 0.5).technique == "prompt"


@given(shares, costs, widths, barring, st.floats(0, 0.3))
def test_what_is_taken_does_and_nothing_that_does_is_clearly_cheaper(quality, cost, width, barred, margin):
    found = recommend(rivals(quality, cost, width, barred), margin, 0.5)
    if found.technique is None:
        assert found.decision == "none"
        return
    assert found.technique in found.fit or (found.decision == "inconclusive" and not found.fit)
    assert all(cost[found.technique] <= (1 + ALIKE) * cost[name] for name in found.fit)
    assert all(found.standings[name] == "will do" for name in found.fit)
    assert not (barred and "fine-tuned" in found.fit)
    assert all(found.reasons)


@given(shares, costs, widths, st.floats(0.01, 1000))
def test_the_unit_of_cost_decides_nothing(quality, cost, width, factor):
    scaled = {name: value * factor for name, value in cost.items()}
    one, other = (recommend(rivals(quality, each, width), MARGIN, 0.5) for each in (cost, scaled))
    assert one.decision == other.decision or any(  # but for rounding at the limit of what is alike
        abs(a / b - 1 - ALIKE) < 1e-9 for a in cost.values() for b in cost.values()
    )


@given(shares, costs)
def test_what_is_known_exactly_is_never_inconclusive(quality, cost):
    assert recommend(rivals(quality, cost), MARGIN, 0.5).decision in ("recommend", "none")


@given(shares, costs, widths)
def test_the_order_of_the_rivals_decides_nothing(quality, cost, width):
    given_ = rivals(quality, cost, width)
    assert recommend(given_, MARGIN, 0.5).technique == recommend(given_[::-1], MARGIN, 0.5).technique


@given(shares, costs, widths)
def test_a_barred_technique_changes_nothing_for_the_others(quality, cost, width):
    three = {name: value for name, value in quality.items() if name != "fine-tuned"}
    with_it = recommend(rivals(quality, cost, width, "facts change"), MARGIN, 0.5)
    without = recommend(rivals(three, cost, width), MARGIN, 0.5)
    assert (with_it.decision, with_it.technique, with_it.fit) == (without.decision, without.technique, without.fit)


def choice(decision: str, *fit: Technique) -> Choice:
    return Choice(decision=decision, technique=fit[0] if fit else None, fit=fit, reasons=("because",))


@pytest.mark.parametrize(
    ("choices", "decision", "technique"),
    [
        ([choice("recommend", "prompt", "shots"), choice("recommend", "shots", "fine-tuned")], "recommend", "shots"),
        ([choice("recommend", "fine-tuned"), choice("recommend", "retrieval")], "split", None),
        ([choice("inconclusive", "fine-tuned"), choice("recommend", "fine-tuned")], "inconclusive", "fine-tuned"),
        ([choice("none"), choice("none")], "none", None),
        ([choice("none"), choice("recommend", "shots")], "split", None),
    ],
)
def test_one_technique_is_recommended_for_all_where_it_does_everywhere(choices, decision, technique):
    found = overall(dict(zip("ab", choices, strict=True)), by_name(1, 2, 3, 4))
    assert (found.decision, found.technique) == (decision, technique)


def test_training_is_paid_back_by_what_each_request_saves():
    same = by_name(0.2, 0.9, 0.9, 0.9)
    found = payback(rivals(same, by_name(1, 3000, 2500, 2000)), MARGIN, 3600.0, 1000)
    assert (found.alternative, found.requests) == ("retrieval", 7200)
    assert found.reason.startswith("after 7,200 requests against retrieval")
    dear = payback(rivals(same, by_name(1, 3000, 1500, 2000)), MARGIN, 3600.0, 1000)
    assert (dear.requests, dear.reason[:5]) == (None, "never")
    alone = payback(rivals(by_name(0.2, 0.3, 0.4, 0.9), by_name(1, 1, 1, 1)), MARGIN, 3600.0, 1000)
    assert alone.alternative is None
    unknown = payback(rivals(same, by_name(1, 3000, 2500, 2000)), MARGIN, None, 1000)
    assert "no record of its training" in unknown.reason


@given(shares, costs, widths, st.floats(0, 1e6))
def test_after_the_payback_the_fine_tuned_model_has_cost_no_more(quality, cost, width, training):
    given_ = rivals(quality, cost, width)
    found = payback(given_, MARGIN, training, 1000)
    if found.requests is not None and found.alternative is not None:
        spent = {name: value / 1000 * found.requests for name, value in cost.items()}
        assert spent["fine-tuned"] + training <= spent[found.alternative] * (1 + 1e-9) + 1e-6
