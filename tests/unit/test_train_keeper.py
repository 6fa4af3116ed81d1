"""A checkpoint is of the moment it was asked for; training does not wait for the store, and hears of its failure."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerState

from data_contracts.errors import Refused
from pipelines.recipes.recipe import Guards
from pipelines.stages.train.checkpoints import Checkpoints, StoreLost
from pipelines.stages.train.guards import Watchman
from pipelines.stages.train.job import TrainJob
from pipelines.stages.train.keeper import Keeper
from tests.support.training import make_job, make_recipe


class SlowStore(Checkpoints):
    """Writes when it is let, and fails when it is told to."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.let = threading.Event()
        self.failure: Exception | None = None

    def write(self, step: int, files: Any) -> None:
        assert self.let.wait(30)
        if self.failure is not None:
            raise self.failure
        super().write(step, files)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SlowStore]:
    store = SlowStore(str(tmp_path / "checkpoints"))
    yield store
    store.let.set()


@pytest.fixture
def trainer() -> Any:
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    trainer = SimpleNamespace(
        model=model,
        accelerator=SimpleNamespace(unwrap_model=lambda model: model),
        optimizer=optimizer,
        lr_scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
        state=TrainerState(max_steps=10),
        callback_handler=SimpleNamespace(callbacks=[]),
        control=None,
        args=SimpleNamespace(should_save=True),
    )
    step(trainer)
    return trainer


def step(trainer: Any, keeper: Keeper | None = None) -> None:
    trainer.model(torch.ones(4)).backward()
    if keeper is not None:
        keeper.settle()
    trainer.optimizer.step()
    trainer.state.global_step += 1


def step_until(raises: Callable[[], None]) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        raises()


@pytest.fixture
def keeper(tmp_path: Path, store: SlowStore) -> Keeper:
    job = TrainJob.model_validate_json(make_job(tmp_path / "run", tmp_path, make_recipe()).read_bytes())
    return Keeper(job, store, Watchman(Guards(max_loss_ratio=3.0, window=4, max_grad_norm=100.0)), every=1)


def test_training_goes_on_while_the_store_is_slow_and_does_not_change_what_is_kept(
    tmp_path: Path, store: SlowStore, keeper: Keeper, trainer: Any
) -> None:
    weights = trainer.model.weight.detach().clone()
    moments = trainer.optimizer.state_dict()["state"][0]["exp_avg"].clone()
    with keeper:
        keeper.keep(trainer)
        step(trainer, keeper)
        keeper.raise_failure()
        assert store.steps() == []
        store.let.set()
    assert store.fetch(1, tmp_path / "copy")
    assert torch.equal(load_file(tmp_path / "copy" / "model.safetensors")["weight"], weights)
    optimizer = torch.load(tmp_path / "copy" / "optimizer.pt", weights_only=True)
    assert torch.equal(optimizer["state"][0]["exp_avg"], moments)
    assert not torch.equal(trainer.model.weight, weights)


def test_the_optimizer_waits_for_a_copy_that_is_not_made_yet(
    tmp_path: Path, store: SlowStore, keeper: Keeper, trainer: Any
) -> None:
    copied = threading.Event()

    class Slow(dict[str, Any]):
        def items(self) -> Any:
            assert copied.wait(30)
            return super().items()

    held = trainer.optimizer.state_dict()
    moments = held["state"][0]["exp_avg"].clone()
    trainer.optimizer.state_dict = lambda: Slow(held)
    store.let.set()
    with keeper:
        keeper.keep(trainer)
        stepping = threading.Thread(target=step, args=(trainer, keeper))
        stepping.start()
        stepping.join(0.2)
        assert stepping.is_alive()
        copied.set()
        stepping.join()
    assert store.fetch(1, tmp_path / "copy")
    optimizer = torch.load(tmp_path / "copy" / "optimizer.pt", weights_only=True)
    assert torch.equal(optimizer["state"][0]["exp_avg"], moments)


def test_a_lost_store_is_heard_of_at_the_next_step(store: SlowStore, keeper: Keeper, trainer: Any) -> None:
    store.failure = StoreLost("the network is away")
    keeper.keep(trainer)
    keeper.raise_failure()
    store.let.set()
    with pytest.raises(StoreLost, match="the network is away"):
        step_until(keeper.raise_failure)


def test_only_one_is_in_flight(store: SlowStore, keeper: Keeper, trainer: Any) -> None:
    with keeper:
        keeper.keep(trainer)
        step(trainer, keeper)
        second = threading.Thread(target=keeper.keep, args=(trainer,))
        second.start()
        second.join(0.2)
        assert second.is_alive()
        store.let.set()
        second.join()
    assert store.steps() == [2, 1]


def test_weights_that_are_no_numbers_take_no_place(store: SlowStore, keeper: Keeper, trainer: Any) -> None:
    store.let.set()
    keeper.keep(trainer)
    keeper.wait()
    with torch.no_grad():
        trainer.model.weight[0, 0] = float("nan")
    step(trainer)
    keeper.keep(trainer)
    with pytest.raises(Refused, match="hold NaN or infinity"):
        keeper.wait()
    assert (store.steps(), store.is_whole(1)) == ([1], True)
