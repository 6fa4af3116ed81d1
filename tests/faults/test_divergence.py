"""A run that goes astray is caught by the guard that is meant for it; what was good stays; the record says so."""

import json
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from data_contracts.records import PreferencePair
from pipelines.recipes.recipe import Recipe
from pipelines.stages.train.checkpoints import Checkpoints
from pipelines.stages.train.job import RunFiles, TrainResult
from pipelines.stages.train.rows import order
from tests.support import poison
from tests.support.tiny import make_tiny_base
from tests.support.trainer import Harm, Trainer, finish, reached
from tests.support.training import make_job, make_pairs, make_recipe

STEPS = 12
SFT = {"steps": STEPS, "checkpoint_every": 2, "eval_every": 6}


def recipe(sft: dict[str, Any] | None = None, dpo: dict[str, Any] | None = None, **guards: Any) -> Recipe:
    usual = {"max_loss_ratio": 10.0, "window": 4, "max_grad_norm": 10000.0}
    return make_recipe(sft=SFT | (sft or {}), dpo=dpo or {}, guards=usual | guards)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


def result(folder: Path) -> TrainResult:
    return TrainResult.model_validate_json(RunFiles(folder).result.read_bytes())


def fails(job: Path, harm: Harm | None = None) -> dict[str, Any]:
    """The record of a run that must fail, after a look at what it leaves: whole checkpoints up to the step before."""
    assert Trainer(job, harm).wait() == 1
    files = RunFiles(job.parent)
    record: dict[str, Any] = json.loads(files.failed.read_text())
    checkpoints = Checkpoints(str(files.checkpoints))
    steps = checkpoints.steps()
    assert all(checkpoints.is_whole(step) for step in steps)
    assert max(steps, default=0) == (record["step"] - 1) // 2 * 2
    assert not files.result.exists()
    return record


def test_a_poisoned_batch_ends_the_run_with_a_record_of_it(tmp_path: Path, base: Path) -> None:
    record = fails(make_job(tmp_path, base, recipe()), partial(poison.nan_loss, 5))
    assert (record["error"], record["guard"], record["step"]) == ("GuardTripped", "not_finite", 5)
    assert record["reason"].startswith("step 5: the loss is nan")
    assert record["last_metrics"]["step"] == 4
    assert record["last_metrics"]["loss"] > 0
    assert record["hyperparameters"]["sft"]["schedule"]["learning_rate"] == 0.01


def test_an_absurd_learning_rate_is_not_stepped_with(tmp_path: Path, base: Path) -> None:
    record = fails(make_job(tmp_path, base, recipe({"learning_rate": 50.0, "warmup_steps": 4}, max_learning_rate=20.0)))
    assert (record["guard"], record["step"]) == ("learning_rate", 3)
    assert "the learning rate is 25, above 20.0 (guards.max_learning_rate)" in record["reason"]


def test_a_batch_without_a_label_is_skipped_and_counted(tmp_path: Path, base: Path) -> None:
    lenient = recipe(actions={"no_label": "skip"}, max_skips=1)
    finish(make_job(tmp_path, base, lenient), partial(poison.no_labels, 5))
    done = result(tmp_path)
    assert [(trip.step, trip.guard, trip.action) for trip in done.trips] == [(5, "no_label", "skip")]
    assert (done.metrics["skipped_steps"], done.metrics["roll_backs"]) == (1, 0)
    assert [point.step for point in done.curve if point.loss is None] == [0, 5]

    strict = make_job(tmp_path / "strict", base, recipe())
    assert fails(strict, partial(poison.no_labels, 5))["guard"] == "no_label"


def flipped(at: int, rows: int, seed: int) -> list[PreferencePair]:
    """Pairs whose better side is, from a place in training order on, called the worse one."""
    pairs = make_pairs(rows)
    for index in order(rows, rows, seed)[at:]:
        pair = pairs[index]
        pairs[index] = pair.model_copy(update={"chosen": pair.rejected, "rejected": pair.chosen})
    return pairs


def test_labels_that_flip_in_mid_data_are_a_spike(tmp_path: Path, base: Path) -> None:
    """Rolled back twice with a lower rate, as the recipe allows, and then given up: the rows are to blame."""
    turning = recipe(
        dpo={"steps": STEPS, "checkpoint_every": 2, "eval_every": STEPS},
        max_loss_ratio=1.7,
        actions={"loss_spike": "roll_back"},
        max_roll_backs=2,
    )
    parent = tmp_path / "sft"
    finish(make_job(parent, base, turning))
    job = make_job(tmp_path / "dpo", base, turning, RunFiles(parent).weights, rows=flipped(16, 24, turning.seed))
    record = fails(job)
    assert (record["guard"], record["step"]) == ("loss_spike", 9)
    assert [(trip["step"], trip["action"]) for trip in record["trips"]] == [
        (9, "roll_back"),
        (9, "roll_back"),
        (9, "abort"),
    ]
    assert "guards.max_roll_backs allows no more" in record["reason"]


def test_a_run_that_skipped_and_was_killed_ends_with_the_same_bytes(tmp_path: Path, base: Path) -> None:
    lenient, harm = recipe(actions={"not_finite": "skip"}, max_skips=2), partial(poison.nan_loss, 5)
    uninterrupted = finish(make_job(tmp_path / "whole", base, lenient), harm)
    assert uninterrupted != finish(make_job(tmp_path / "unharmed", base, lenient))
    job = make_job(tmp_path / "killed", base, lenient)
    assert Trainer(job, harm).signal_when(signal.SIGKILL, reached(job, 7)) == -signal.SIGKILL
    assert finish(job, harm) == uninterrupted
    assert result(job.parent) == result(tmp_path / "whole")


def test_a_run_that_rolled_back_and_was_stopped_ends_with_the_same_bytes(tmp_path: Path, base: Path) -> None:
    """A checkpoint that a stop brought about, after the one that is rolled back to, must not change the course."""
    rolling = recipe(
        {"scheduler": "constant_with_warmup", "warmup_steps": 8, "checkpoint_every": 4},
        max_learning_rate=0.008,
        actions={"learning_rate": "roll_back"},
        max_roll_backs=1,
    )
    uninterrupted = finish(make_job(tmp_path / "whole", base, rolling))
    whole = result(tmp_path / "whole")
    assert [(trip.step, trip.action) for trip in whole.trips] == [(8, "roll_back")]
    assert whole.metrics["roll_backs"] == 1
    rates = {point.step: point.learning_rate for point in whole.curve}
    assert (rates[4], rates[5], rates[9]) == (0.00375, 0.0025, 0.005)
    for number in (signal.SIGTERM, signal.SIGKILL):
        job = make_job(tmp_path / number.name, base, rolling)
        Trainer(job).signal_when(number, reached(job, 6))
        Trainer(job).signal_when(number, reached(job, 9))
        assert finish(job) == uninterrupted
        assert result(job.parent) == whole
