"""Which evaluated step is kept: the least loss, or the earliest that is as good within one standard error."""

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.errors import BadInput
from pipelines.stages.train.job import CurvePoint
from pipelines.stages.train.sweep import RowLosses, best_step, with_errors

STEPS = [0, 10, 20, 30]


def points(rows: dict[int, list[float]]) -> list[CurvePoint]:
    return [CurvePoint(step=step, validation_loss=fmean(losses)) for step, losses in rows.items()]


def chosen(rows: dict[int, list[float]], select: str = "one_standard_error") -> int:
    return best_step(points(rows), rows, select)  # type: ignore[arg-type]


def test_an_earlier_step_is_taken_when_what_follows_gains_no_more_than_its_error() -> None:
    # From 20 to 30 one row gains and another loses nearly as much; from 10 on every row gained for sure.
    rows = {0: [4.0, 5.0, 6.0], 10: [2.0, 3.0, 4.0], 20: [1.0, 2.0, 3.0], 30: [0.6, 2.2, 3.1]}
    assert chosen(rows) == 20
    assert chosen(rows, "minimum") == 30


def test_the_scatter_between_rows_does_not_excuse_a_hardly_trained_step() -> None:
    # Rows differ a hundred times more than steps do: by the error of a mean (57.7) any step would do.
    rows = {0: [0.5, 100.5, 200.5], 10: [0.3, 100.3, 200.3], 20: [0.1, 100.1, 200.1], 30: [0.0, 100.0, 200.0]}
    assert chosen(rows) == 30


def test_the_untrained_step_is_never_chosen() -> None:
    rows = {0: [1.0, 1.0], 10: [2.0, 2.0], 20: [3.0, 3.0]}
    assert chosen(rows) == chosen(rows, "minimum") == 10


@given(st.lists(st.lists(st.floats(0, 20), min_size=4, max_size=4), min_size=2, max_size=8))
def test_it_is_never_later_than_the_minimum_and_never_worse_than_its_error(columns: list[list[float]]) -> None:
    rows = {step: [column[place] for column in columns] for place, step in enumerate(STEPS)}
    kept, least = chosen(rows), chosen(rows, "minimum")
    assert 0 < kept <= least
    (point,) = (each for each in with_errors(points(rows), rows) if each.step == kept)
    assert point.validation_loss is not None
    assert point.validation_error is not None
    assert point.validation_loss - fmean(rows[least]) <= point.validation_error + 1e-9


def test_the_curve_tells_the_error_of_each_difference() -> None:
    rows = {0: [3.0, 5.0], 10: [1.0, 2.0]}
    first, last = with_errors(points(rows), rows)
    assert (first.validation_error, last.validation_error) == (pytest.approx(0.5), 0.0)


def test_one_row_has_no_standard_error(tmp_path) -> None:  # type: ignore[no-untyped-def]
    kept = RowLosses(tmp_path)
    kept.losses = [1.0]
    kept.keep(10)
    with pytest.raises(BadInput, match="eval_rows"):
        kept.read(points({10: [1.0]}))
