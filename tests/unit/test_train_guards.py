"""Guards stop a run that goes astray, and no other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.recipes.recipe import GuardActions, Guards
from pipelines.stages.train.guards import GuardTripped, RollBack, Watchman

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


def test_a_hard_row_among_rows_that_are_learned_by_heart_is_no_spike_up_to_the_floor() -> None:
    known = (0.02, 0.03, 0.0, 0.0)
    Watchman(GUARDS, known).check_loss(5, 0.9)
    with pytest.raises(GuardTripped, match=r"step 5: the loss 2\.9 "):
        Watchman(GUARDS, known).check_loss(5, 2.9)
    watchman = Watchman(GUARDS.model_copy(update={"spike_floor": 3.0}), known)
    watchman.check_loss(5, 2.9)
    with pytest.raises(GuardTripped, match=r"step 6: the loss 3\.1 "):
        watchman.check_loss(6, 3.1)


def _lenient(**more: int) -> Guards:
    actions = GuardActions(not_finite="skip", grad_norm="roll_back")
    return GUARDS.model_copy(update={"actions": actions, "max_skips": 2, "max_roll_backs": 1} | more)


def test_so_many_steps_are_skipped_and_the_next_one_ends_the_run() -> None:
    watchman = Watchman(_lenient())
    for step in (1, 2):
        watchman.begin_step()
        watchman.check_loss(step, float("nan"))
        assert watchman.skipping
        watchman.check_loss(step, float("inf"))  # another batch of the same step
    watchman.begin_step()
    watchman.check_loss(3, 1.0)
    assert (watchman.skipping, list(watchman.losses)) == (False, [1.0])
    assert watchman.counts() == {"skipped_steps": 2, "roll_backs": 0}
    with pytest.raises(GuardTripped, match=r"step 4: the loss is nan.*guards\.max_skips allows no more") as tripped:
        watchman.check_loss(4, float("nan"))
    assert [trip.action for trip in tripped.value.trips] == ["skip", "skip", "abort"]


def test_each_roll_back_lowers_the_rate() -> None:
    with pytest.raises(RollBack, match="step 7: the gradient norm") as back:
        Watchman(_lenient()).check_gradient(7, 200.0)
    after = Watchman(_lenient(), trips=back.value.trips)
    assert (Watchman(_lenient()).rate, after.rate) == (1.0, 0.5)
    with pytest.raises(GuardTripped, match=r"guards\.max_roll_backs allows no more"):
        after.check_gradient(7, 200.0)


def test_a_validation_loss_that_is_no_number_cannot_be_skipped() -> None:
    with pytest.raises(GuardTripped, match="validation loss is inf"):
        Watchman(_lenient()).check_validation(10, float("inf"))


@pytest.mark.parametrize("rate", [0.0101, float("nan"), float("inf")])
def test_a_learning_rate_above_the_allowed_one_trips(rate: float) -> None:
    watchman = Watchman(GUARDS.model_copy(update={"max_learning_rate": 0.01}))
    watchman.check_rate(1, 0.01)
    with pytest.raises(GuardTripped, match=r"step 2: the learning rate .*max_learning_rate"):
        watchman.check_rate(2, rate)


def test_a_batch_without_a_label_trips() -> None:
    Watchman(GUARDS).check_labels(1, 1)
    with pytest.raises(GuardTripped, match="step 2: the batch has no label"):
        Watchman(GUARDS).check_labels(2, 0)


def test_a_probe_is_held_against_the_start_and_not_against_the_last() -> None:
    watchman = Watchman(GUARDS)
    for step, share in ((0, 0.8), (10, 0.7), (20, 0.61)):
        watchman.check_probes(step, {"general-knowledge": share, "refusals": 0.0}, max_drop=0.2)
    with pytest.raises(GuardTripped, match=r"step 30: the probe general-knowledge fell to 0\.59 from 0\.8") as tripped:
        watchman.check_probes(30, {"general-knowledge": 0.59, "refusals": 0.0}, max_drop=0.2)
    assert tripped.value.trips[-1].guard == "probes"


@given(st.lists(st.one_of(st.floats(0.1, 50), st.just(float("nan"))), min_size=1, max_size=20), st.integers(0, 19))
def test_guards_that_go_on_from_what_a_checkpoint_says_judge_alike(losses: list[float], cut: int) -> None:
    def judged(watchman: Watchman, some: list[float], first: int) -> str:
        for step, loss in enumerate(some, start=first):
            watchman.begin_step()
            try:
                watchman.check_loss(step, loss)
            except GuardTripped as tripped:
                return f"{tripped.trips}"
        return f"{watchman.trips}"

    guards = _lenient(max_roll_backs=0)
    whole, before = judged(Watchman(guards), losses, 1), Watchman(guards)
    if (ended := judged(before, losses[:cut], 1)) != f"{before.trips}":
        assert ended == whole
        return
    after = Watchman(guards, tuple(before.losses), tuple(before.trips), before.probes)
    assert judged(after, losses[cut:], min(cut, len(losses)) + 1) == whole
