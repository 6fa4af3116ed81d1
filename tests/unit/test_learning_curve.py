"""The curve finds back a power law that was planted, and its interval is honest about how little few points tell."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.learning_curve import Point, TooFewPoints, gain

SIZES = (200, 400, 800, 1600)


def law(rows: int, floor: float = 0.1, scale: float = 4.0, exponent: float = 0.5) -> float:
    return floor + scale * rows**-exponent


def points(spread: float, seed: int | None = None, sizes: tuple[int, ...] = SIZES) -> list[Point]:
    """On the planted law, or drawn about it; ``spread`` is a standard deviation, the interval of 90 %."""
    draw = random.Random(seed)
    found = []
    for rows in sizes:
        error = min(1.0, max(0.0, law(rows) + (0 if seed is None else draw.gauss(0, spread))))
        low, high = max(0.0, error - 1.645 * spread), min(1.0, error + 1.645 * spread)
        found.append(Point(rows=rows, error=error, low=low, high=high))
    return found


def test_a_planted_law_is_found_back() -> None:
    found = gain(points(0.001), 1600, 1600, 0.9)

    assert found.error == pytest.approx(law(1600), abs=1e-6)
    assert found.estimate == pytest.approx(law(1600) - law(3200), abs=1e-6)
    assert found.low <= found.estimate <= found.high


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Of 200 histories drawn about the law; 90 % of them, within three standard errors."""
    truth = law(1600) - law(3200)
    covered = 0
    for seed in range(200):
        found = gain(points(0.01, seed), 1600, 1600, 0.9, resamples=300)
        covered += found.low <= truth <= found.high
    print(f"covered {covered} of 200")
    assert covered >= 200 * (0.9 - 3 * (0.9 * 0.1 / 200) ** 0.5)


def test_wider_intervals_of_the_points_widen_it() -> None:
    sure, unsure = gain(points(0.005), 1600, 800, 0.9), gain(points(0.05), 1600, 800, 0.9)

    assert unsure.high - unsure.low > sure.high - sure.low


def test_errors_that_rows_do_not_mend_promise_nothing() -> None:
    flat = [Point(rows=rows, error=0.3, low=0.28, high=0.32) for rows in SIZES]
    rising = [Point(rows=rows, error=rows / 4000, low=rows / 4000, high=rows / 4000) for rows in SIZES]

    assert gain(flat, 1600, 10_000, 0.9).estimate == pytest.approx(0, abs=1e-9)
    assert gain(rising, 1600, 10_000, 0.9).high == pytest.approx(0, abs=1e-9)


@given(
    errors=st.lists(st.floats(0, 1), min_size=4, max_size=4), rows=st.integers(1, 10_000), more=st.integers(0, 10_000)
)
def test_more_rows_never_gain_less(errors: list[float], rows: int, more: int) -> None:
    history = [
        Point(rows=size, error=error, low=max(0, error - 0.05), high=min(1, error + 0.05))
        for size, error in zip(SIZES, errors, strict=True)
    ]
    some, twice = (gain(history, rows, n, 0.9, resamples=50) for n in (more, 2 * more))

    assert 0 <= some.low <= some.estimate <= some.high
    assert some.estimate <= twice.estimate + 1e-12
    assert gain(history, rows, 0, 0.9, resamples=50).high == 0


def test_fewer_than_three_numbers_of_rows_are_no_curve() -> None:
    with pytest.raises(TooFewPoints, match="2 past releases learned from 2 different"):
        gain(points(0.01, sizes=(200, 400)), 400, 100, 0.9)
    with pytest.raises(TooFewPoints, match="3 past releases learned from 2 different"):
        gain(points(0.01, sizes=(200, 400, 400)), 400, 100, 0.9)
