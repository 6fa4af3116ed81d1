"""Dagster runs a training step again when its trainer was stopped, and does not when it failed."""

from typing import Any

import dagster as dg
import pytest

from assets import resuming, training
from assets.groups import PRODUCTS
from data_contracts.errors import Refused, Unavailable
from data_contracts.manifests import BaseManifest, CheckpointManifest, DatasetManifest
from tests.assets.conftest import Runner, reason
from tests.support.line import SmallLine

STOPPED = Unavailable("training was stopped; run the step again")
TRIPPED = Refused("training ended with code 1: the loss is nan")


class Steps:
    """In place of `steps.sft`: raises these, one a call, and then returns the checkpoint."""

    def __init__(self, small: SmallLine, failures: list[Exception]) -> None:
        made = small.parts.store.get_manifest(small.candidate().checkpoint, CheckpointManifest)
        points = [{"step": step, "loss": 1.0 / step} for step in (1, 2)]
        self.made = made.model_copy(update={"curve": small.parts.store.put_json(points)})
        self.failures, self.calls = failures, 0

    def __call__(self, *inputs: Any) -> tuple[CheckpointManifest, bool]:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return self.made, False


@pytest.fixture
def inputs(small: SmallLine) -> list[dg.AssetsDefinition]:
    @dg.asset(key=["model", "base"], partitions_def=PRODUCTS)
    def base() -> dg.MaterializeResult[BaseManifest]:
        return dg.MaterializeResult(value=small.base)

    @dg.asset(key=["data", "splits"], partitions_def=PRODUCTS)
    def splits() -> dg.MaterializeResult[DatasetManifest]:
        return dg.MaterializeResult(value=small.splits)

    return [base, splits]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "WAIT_S", 0)


def test_a_trainer_that_was_stopped_twice_is_gone_on_with(
    run: Runner, inputs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps(run.small, [STOPPED, STOPPED])
    monkeypatch.setattr(training.steps, "sft", steps)
    result = run([*inputs, training.sft])
    assert result.success
    assert steps.calls == 3
    assert len([event for event in result.all_events if event.is_step_restarted]) == 2


@pytest.mark.parametrize(("failures", "calls"), [([TRIPPED, TRIPPED], 1), ([STOPPED] * 9, 1 + resuming.RETRIES)])
def test_a_run_that_failed_is_not_run_again_and_no_run_is_for_ever(
    run: Runner, inputs: list[Any], monkeypatch: pytest.MonkeyPatch, failures: list[Exception], calls: int
) -> None:
    steps = Steps(run.small, failures.copy())
    monkeypatch.setattr(training.steps, "sft", steps)
    result = run([*inputs, training.sft])
    assert not result.success
    assert steps.calls == calls
    assert str(failures[0]) in reason(result)
