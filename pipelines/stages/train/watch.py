"""What happens around each optimizer step: guards before it, reports, checkpoints and the sweep after it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from pipelines.stages.train import ranks
from pipelines.stages.train.guards import Watchman
from pipelines.stages.train.job import CurvePoint
from pipelines.stages.train.keeper import Keeper
from pipelines.stages.train.pace import Meter
from pipelines.stages.train.probes import Prober
from pipelines.stages.train.progress import Sink
from pipelines.stages.train.sweep import RowLosses

_MASKED = -100
"""The label of a token that is not learned (torch.nn.CrossEntropyLoss)."""
_CURVE = {
    "loss": "loss",
    "mean_token_accuracy": "token_accuracy",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "eval_loss": "validation_loss",
    "eval_mean_token_accuracy": "validation_accuracy",
    "eval_rewards/accuracies": "validation_accuracy",
    "eval_accuracy": "validation_accuracy",
    "reward": "reward",
}


class Stop:
    """Asked for by a signal, or by a file that somebody makes; read after each step."""

    def __init__(self, file: Path) -> None:
        self.file, self.signalled = file, False

    @property
    def asked(self) -> bool:
        return self.signalled or self.file.exists()


def curve(history: Sequence[dict[str, Any]]) -> tuple[CurvePoint, ...]:
    """The trainer's log as one point a step. Validation accuracy: of tokens for SFT, of pairs for preferences and
    rewards. Where answers earn rewards, the validation loss is what they missed: 1 - reward."""
    points: dict[int, dict[str, Any]] = {}
    for entry in history:
        known = {ours: float(entry[theirs]) for theirs, ours in _CURVE.items() if theirs in entry}
        if "eval_reward" in entry:
            known["validation_loss"] = 1 - float(entry["eval_reward"])
        if known:
            points.setdefault(int(entry["step"]), {}).update(known)
    return tuple(CurvePoint(step=step, **points[step]) for step in sorted(points))


def stalled(points: Sequence[CurvePoint], patience: int | None) -> bool:
    """Whether the last ``patience`` validations all missed the least validation loss of those before them."""
    losses = [point.validation_loss for point in points if point.step and point.validation_loss is not None]
    return patience is not None and len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])


class Watch(TrainerCallback):  # type: ignore[misc]  # transformers ships no types; its callbacks are subclasses
    def __init__(
        self,
        watchman: Watchman,
        clip_norm: float,
        patience: int | None,
        sinks: Sequence[Sink],
        stop: Stop,
        keeper: Keeper,
        save: Callable[[int], None],
        prober: Prober | None,
        row_losses: RowLosses | None,
    ) -> None:
        self.watchman, self.clip_norm, self.patience = watchman, clip_norm, patience
        self.sinks, self.stop, self.keeper, self.save = sinks, stop, keeper, save
        self.prober, self.row_losses = prober, row_losses
        self.meter = Meter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.meter.begin(state.global_step)
        if self.prober is not None and not self.watchman.probes:
            self.watchman.check_probes(state.global_step, self.prober.shares(), self.prober.probes.max_drop)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.keeper.raise_failure()
        self.watchman.begin_step()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step, model, watchman = state.global_step + 1, kwargs["model"], self.watchman
        for group in kwargs["optimizer"].param_groups:
            group["lr"] *= watchman.rate  # the scheduler sets it anew after the step
        if not watchman.skipping:
            watchman.check_rate(step, max(float(group["lr"]) for group in kwargs["optimizer"].param_groups))
        if not watchman.skipping:
            watchman.check_gradient(step, float(torch.nn.utils.clip_grad_norm_(model.parameters(), self.clip_norm)))
        if watchman.skipping:
            print(f"skipped: {watchman.trips[-1].reason}", flush=True)
            for parameter in model.parameters():
                parameter.grad = None  # without a gradient an optimizer leaves weight and moments alone
        self.keeper.settle()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.prober is not None and state.global_step % self.prober.probes.every == 0:
            self.watchman.check_probes(state.global_step, self.prober.shares(), self.prober.probes.max_drop)
        if ranks.anywhere(self.stop.asked):
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        last = state.log_history[-1]
        if "learning_rate" in last:
            last["learning_rate"] *= self.watchman.rate
        if self.watchman.skipping:
            for name in ("loss", "grad_norm"):  # of a batch that was not learned from
                last.pop(name, None)
        for point in curve([last]):
            pace = self.meter.after(point.step, state.max_steps, last.get("num_tokens"))
            for sink in self.sinks:
                sink.point(point, pace, state.max_steps)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        loss = float(kwargs["metrics"]["eval_loss"])
        self.watchman.check_validation(state.global_step, loss)
        self.keeper.validation = (state.global_step, loss)
        if self.row_losses is not None:
            self.row_losses.keep(state.global_step)
        if state.global_step > 0:
            self.save(state.global_step)
        if stalled(curve(state.log_history), self.patience):
            control.should_training_stop = True


def watch_steps(trainer: Any, watchman: Watchman, keeper: Keeper) -> None:
    """Check each batch before the optimizer may use its gradient, and let ``keeper`` take the checkpoints."""
    unguarded = trainer.training_step

    def guarded(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        step = trainer.state.global_step + 1
        labels = ranks.total(_labels(inputs))
        watchman.check_labels(step, int(labels))
        if labels == 0:
            return torch.zeros((), device=trainer.args.device)
        loss = unguarded(model, inputs, *args, **kwargs)
        watchman.check_loss(step, ranks.mean(float(loss)))
        return torch.zeros_like(loss) if watchman.skipping else loss  # NaN would stay in the trainer's running sum

    trainer.training_step = guarded
    trainer._save_checkpoint = lambda model, trial: keeper.keep(trainer)


def _labels(inputs: Any) -> int:
    """Tokens of a batch that are learned: of any trainer of TRL, which names them in one of two ways."""
    if "labels" in inputs:
        return int((inputs["labels"][..., 1:] != _MASKED).sum())
    return int(inputs["completion_mask"].sum()) if "completion_mask" in inputs else 1
