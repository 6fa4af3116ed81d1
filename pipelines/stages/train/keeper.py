"""Checkpoints taken beside the training: a thread copies the state to memory while the next step goes forward and
backward, which only reads it, and writes the copy out while training goes on."""

import dataclasses
import json
import random
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy
import safetensors.torch
import torch
from accelerate.utils import gather_object
from peft import PeftModel, get_peft_model_state_dict
from transformers.trainer_callback import ExportableState

from data_contracts.errors import Refused
from pipelines.stages.train.checkpoints import FACTS, Checkpoints, Content, Facts
from pipelines.stages.train.guards import Watchman
from pipelines.stages.train.job import TrainJob
from pipelines.stages.train.leftovers import forget_store, is_claimed
from pipelines.stages.train.note import RECIPE, noted

Part = tuple[Callable[[Any, Any], object], Any]
"""What writes a value to a handle, and the value."""


class Keeper:
    """Keeps at most one checkpoint in flight. What goes wrong in the thread is raised at the next step, or at the end
    of the ``with`` block, which waits for it."""

    def __init__(self, job: TrainJob, checkpoints: Checkpoints, watchman: Watchman, every: int) -> None:
        self.job, self.checkpoints, self.watchman, self.every = job, checkpoints, watchman, every
        self.validation: tuple[int, float] | None = None
        """The last validation: step and loss."""
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._copying: Future[dict[str, Content]] | None = None
        self._flying: Future[None] | None = None

    def keep(self, trainer: Any) -> None:
        """Take a checkpoint of this step; waits first for one that is still being written. `settle` before weights or
        optimizer change."""
        self.wait()
        step = int(trainer.state.global_step)
        parts = _state(trainer)
        facts = Facts(
            step=step,
            scheduled=step % self.every == 0 or step == trainer.state.max_steps,
            recipe=self.job.recipe.digest,
            validation_loss=self.validation[1] if self.validation and self.validation[0] == step else None,
            losses=tuple(self.watchman.losses),
            trips=tuple(self.watchman.trips),
            probes=self.watchman.probes,
        )
        if trainer.args.should_save:
            self._copying = self._thread.submit(_copies, trainer.accelerator.unwrap_model(trainer.model), parts)
            self._flying = self._thread.submit(self._write, step, self._copying, facts)

    def settle(self) -> None:
        """Wait until the last checkpoint is copied."""
        copying, self._copying = self._copying, None
        if copying is not None:
            copying.result()

    def raise_failure(self) -> None:
        """What the thread came to grief on, if it has ended."""
        if self._flying is not None and self._flying.done():
            self.wait()

    def wait(self) -> None:
        flying, self._flying = self._flying, None
        if flying is not None:
            flying.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            print(f"the last checkpoint was not kept either: {failure}", flush=True)
        finally:
            self._thread.shutdown()

    def _write(self, step: int, copying: "Future[dict[str, Content]]", facts: Facts) -> None:
        recipe = partial(_put, noted(self.job.recipe))
        said = partial(_put, facts.model_dump_json().encode())
        self.checkpoints.write(step, {**copying.result(), FACTS: said, RECIPE: recipe})
        if self.job.store and not is_claimed(self.job.store):
            forget_store(self.job.store)
            raise Refused(f"{self.job.store} was taken away, as erasure does: nothing of this run is kept")
        self.checkpoints.rotate()


def _state(trainer: Any) -> dict[str, Part]:
    """Optimizer, scheduler, random states and the trainer's own state by file name, as
    ``Trainer.train(resume_from_checkpoint=...)`` reads them. The tensors of the first are the live ones."""
    randoms = gather_object([_random_states()])
    return {
        "optimizer.pt": (torch.save, trainer.optimizer.state_dict()),
        "scheduler.pt": (torch.save, trainer.lr_scheduler.state_dict()),
        "trainer_state.json": (_put_state, _trainer_state(trainer)),
        **{
            "rng_state.pth" if len(randoms) == 1 else f"rng_state_{rank}.pth": (torch.save, states)
            for rank, states in enumerate(randoms)
        },
    }


def _copies(model: Any, parts: dict[str, Part]) -> dict[str, Content]:
    """What is written, by file name. Collecting the weights of an adapter by name takes longer than copying them."""
    adapter = isinstance(model, PeftModel)
    state = get_peft_model_state_dict(model, save_embedding_layers=False) if adapter else model.state_dict()
    weights = {"adapter_model.safetensors" if adapter else "model.safetensors": (_put_weights, _once(state))}
    return {name: partial(put, _copied(value)) for name, (put, value) in {**weights, **parts}.items()}


def _once(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without the second name of a tensor that has two: tied embeddings."""
    found: dict[int, str] = {}
    return {name: tensor for name, tensor in state.items() if found.setdefault(tensor.data_ptr(), name) == name}


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_copied(each) for each in value]
    return value


def _random_states() -> dict[str, Any]:
    states = {"python": random.getstate(), "numpy": numpy.random.get_state(), "cpu": torch.random.get_rng_state()}
    return states | ({"cuda": torch.cuda.random.get_rng_state()} if torch.cuda.is_available() else {})


def _trainer_state(trainer: Any) -> Any:
    for each in [*trainer.callback_handler.callbacks, trainer.control]:
        if isinstance(each, ExportableState):
            trainer.state.stateful_callbacks[type(each).__name__] = each.state()
    return dataclasses.replace(trainer.state, log_history=list(trainer.state.log_history))


def _put(data: bytes, handle: Any) -> None:
    handle.write(data)


def _put_weights(weights: dict[str, torch.Tensor], handle: Any) -> None:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
        raise Refused("the weights hold NaN or infinity after the last step: no checkpoint is made of them")
    handle.write(safetensors.torch.save(weights, {"format": "pt"}))


def _put_state(state: Any, handle: Any) -> None:
    handle.write(json.dumps(dataclasses.asdict(state)).encode())
