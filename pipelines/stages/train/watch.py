"""What happens around each optimizer step: guards before it, reports, checkpoints and the sweep after it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from pipelines.stages.train.checkpoints import rotate, seal
from pipelines.stages.train.guards import Watchman
from pipelines.stages.train.job import CurvePoint, RunFiles
from pipelines.stages.train.progress import Sink

_CURVE = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "eval_loss": "validation_loss",
    "eval_mean_token_accuracy": "validation_accuracy",
    "eval_rewards/accuracies": "validation_accuracy",
    "eval_accuracy": "validation_accuracy",
    "reward": "reward",
}


class Stop:
    """Set by a signal; read after each step."""

    asked = False


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
        files: RunFiles,
        sinks: Sequence[Sink],
        stop: Stop,
        save: Callable[[Path], None],
    ) -> None:
        self.watchman, self.clip_norm, self.patience, self.files = watchman, clip_norm, patience, files
        self.sinks, self.stop, self.save = sinks, stop, save

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A resumed run judges its next loss by the same losses as an uninterrupted one."""
        self.watchman.losses.extend(point.loss for point in curve(state.log_history) if point.loss is not None)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        norm = torch.nn.utils.clip_grad_norm_(kwargs["model"].parameters(), self.clip_norm)
        self.watchman.check_gradient(state.global_step + 1, float(norm))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.stop.asked:
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for point in curve(state.log_history[-1:]):
            for sink in self.sinks:
                sink.point(point, state.max_steps)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.watchman.check_validation(state.global_step, float(kwargs["metrics"]["eval_loss"]))
        if state.global_step > 0:
            self.save(self.files.sweep / f"step-{state.global_step}")
        if stalled(curve(state.log_history), self.patience):
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step
        seal(self.files.work / f"checkpoint-{step}", self.files.checkpoints / f"step-{step}")
        rotate(self.files.checkpoints)


def guard_loss(trainer: Any, watchman: Watchman) -> None:
    """Check each batch's loss before the optimizer may use its gradient."""
    unguarded = trainer.training_step

    def guarded(*args: Any, **kwargs: Any) -> Any:
        loss = unguarded(*args, **kwargs)
        watchman.check_loss(trainer.state.global_step + 1, float(loss))
        return loss

    trainer.training_step = guarded
