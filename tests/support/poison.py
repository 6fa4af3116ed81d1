"""Harm that comes to a trainer at a step: run in its process before the program (`tests.support.trainer`)."""

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def nan_loss(step: int) -> None:
    """The batch of this step has a loss that is no number, whatever the weights."""
    _at(step, lambda self, loss: loss * float("nan"))


def no_labels(step: int) -> None:
    """Every token of this step's batches is masked."""
    from trl import SFTTrainer

    unharmed = SFTTrainer.get_batch_samples

    def harmed(self: Any, *args: Any) -> Any:
        batches, items = unharmed(self, *args)
        if self.state.global_step + 1 == step:
            for batch in batches:
                batch["labels"][:] = -100
        return batches, items

    SFTTrainer.get_batch_samples = harmed


def full_disk(step: int, size: int, written: Path) -> None:
    """From this step on no file may grow beyond ``size`` bytes; the file that is ``written`` beside it still may."""

    def limit(self: Any, loss: Any) -> Any:
        while not written.exists():
            time.sleep(0.001)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        return loss

    _at(step, limit)


def hangs(step: int, seconds: float) -> None:
    """This step takes long."""

    def wait(self: Any, loss: Any) -> Any:
        time.sleep(seconds)
        return loss

    _at(step, wait)


def _at(step: int, harm: Callable[[Any, Any], Any]) -> None:
    from trl import DPOTrainer, SFTTrainer

    def wrapped(unharmed: Any) -> Any:
        def harmed(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
            found = unharmed(self, model, *args, **kwargs)
            here = model.training and self.state.global_step + 1 == step
            return harm(self, found) if here else found

        return harmed

    for each in (SFTTrainer, DPOTrainer):
        each.compute_loss = wrapped(each.compute_loss)
