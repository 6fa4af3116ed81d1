"""Guards stop a run that goes astray, and no other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.recipes.recipe import Guards
from pipelines.stages.train.guards import GuardTripped, Watchman

GUARDS = Guards(max_loss_ratio=3.0, window=4, max_grad_norm=100.0)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_no_number_stops_at_once(loss: float) -> None:
    with pytest.raises(GuardTripped, match="step 1: the loss is"):
        Watchman(GUARDS).check_loss(1, loss)


def test_a_spike_stops_and_names_the_key() -> None:
    watchman = Watchman(GUARDS)
    for step, loss in enumerate([2.0, 1.9, 2.1, 2.0], start=1):
        watchman.check_loss(step, loss)
    with pytest.raises(GuardTripped, match=r"step 5: the loss 6\.1 .*guards\.max_loss_ratio"):
        watchman.check_loss(5, 6.1)


@given(st.lists(st.floats(1.0, 2.9), max_size=30))
def test_losses_within_the_ratio_never_stop(losses: list[float]) -> None:
    watchman = Watchman(GUARDS)
    for step, loss in enumerate(losses, start=1):
        watchman.check_loss(step, loss)


@pytest.mark.parametrize("norm", [float("nan"), float("inf"), 100.1])
def test_a_gradient_out_of_bounds_stops(norm: float) -> None:
    with pytest.raises(GuardTripped, match=r"step 7: the gradient norm .*max_grad_norm"):
        Watchman(GUARDS).check_gradient(7, norm)


def test_a_validation_loss_must_be_a_number() -> None:
    with pytest.raises(GuardTripped, match="validation loss is nan"):
        Watchman(GUARDS).check_validation(10, float("nan"))


def test_a_hard_row_among_rows_that_are_learned_by_heart_is_no_spike() -> None:
    watchman = Watchman(GUARDS)
    for step, loss in enumerate([0.02, 0.03, 0.02, 0.01, 0.29], start=1):
        watchman.check_loss(step, loss)
    with pytest.raises(GuardTripped, match=r"step 6: the loss 0\.31 "):
        watchman.check_loss(6, 0.31)
