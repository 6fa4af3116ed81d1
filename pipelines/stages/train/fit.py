"""One training run, from top to bottom. Part of the trainer program: it imports torch."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
import torch.utils.deterministic as deterministic
from transformers import PrinterCallback, TrainerState, set_seed
from transformers.utils import logging

from data_contracts.errors import Tampered
from pipelines.recipes.objectives import Schedule
from pipelines.stages.train.checkpoints import SEAL, is_whole, newest_whole, seal
from pipelines.stages.train.drawn import drawn_rows
from pipelines.stages.train.environment import describe
from pipelines.stages.train.guards import Watchman
from pipelines.stages.train.job import CurvePoint, RunFiles, TrainJob, TrainResult
from pipelines.stages.train.model import load_model, load_tokenizer, save_weights
from pipelines.stages.train.note import RECIPE, Note, note_recipe
from pipelines.stages.train.progress import Sink
from pipelines.stages.train.trainers import make_trainer
from pipelines.stages.train.watch import Stop, Watch, curve, guard_loss, stalled


def fit(job: TrainJob, sinks: Sequence[Sink], stop: Stop) -> TrainResult | None:
    """Train, or go on training, and leave the weights of the best validated step in ``run_dir/weights``.

    ``None`` when it was told to stop: the run directory then holds a checkpoint to resume from.
    """
    files = RunFiles(job.run_dir)
    recipe, schedule = job.recipe, job.recipe.schedule(job.stage)
    # Every result, and so every name made from it, must come out the same from the same job.
    torch.use_deterministic_algorithms(recipe.deterministic)
    # That would fill memory before it is used, to find reads of unset memory: 7 % of a step.
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # not in torch's stubs
    set_seed(recipe.seed)  # TRL would build the adapter before it seeds
    datasets.disable_caching()  # rows stay in memory: erasure need not look for copies
    datasets.disable_progress_bars()
    logging.disable_progress_bar()

    tokenizer = load_tokenizer(job)
    train, validation = drawn_rows(job, "train", tokenizer), drawn_rows(job, "validation", tokenizer)
    resume_from = _resume(files)
    os.environ["TMPDIR"] = str(files.work)  # what `datasets` writes of rows, DPO's reference scores, goes with the run
    model = load_model(job)
    trainer = make_trainer(job, model, tokenizer, train, validation, fresh=resume_from is None)
    watchman = Watchman(recipe.guards)
    guard_loss(trainer, watchman)

    def keep(target: Path) -> None:
        part = files.work / f"sweep-{target.name}"
        shutil.rmtree(part, ignore_errors=True)
        save_weights(model, tokenizer, job, part)
        note_recipe(recipe, part)
        seal(part, target)

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Note(recipe))
    trainer.add_callback(Watch(watchman, schedule.clip_norm, schedule.patience, files, sinks, stop, keep))
    if stop.asked:
        return None
    if resume_from is not None:
        trainer.state = TrainerState.load_from_json(str(resume_from / "trainer_state.json"))
    if not _ended(trainer.state, schedule):
        trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
    if not _ended(trainer.state, schedule):
        return None

    points = curve(trainer.state.log_history)
    step = best_step(points)
    _take(files.sweep / f"step-{step}", files.weights)
    return TrainResult(step=step, metrics=_metrics(points, step, train), curve=points, environment=describe())


def _ended(state: TrainerState, schedule: Schedule) -> bool:
    """Whether all steps were taken, or early stopping found that more would not help."""
    return state.global_step >= schedule.steps or stalled(curve(state.log_history), schedule.patience)


def best_step(points: Sequence[CurvePoint]) -> int:
    """The trained step with the least validation loss; the earliest of equals."""
    validated = [
        (point.validation_loss, point.step) for point in points if point.step and point.validation_loss is not None
    ]
    return min(validated)[1]


def _resume(files: RunFiles) -> Path | None:
    shutil.rmtree(files.work, ignore_errors=True)
    checkpoint, damaged = newest_whole(files.checkpoints)
    for folder in damaged:
        print(f"checkpoint {folder.name} is damaged or incomplete and is passed over", flush=True)
    if checkpoint is not None:
        print(f"resuming from {checkpoint.name}", flush=True)
    return checkpoint


def _take(kept: Path, weights: Path) -> None:
    if not is_whole(kept):
        raise Tampered(f"{kept} is not as it was saved: delete the run directory and train again")
    shutil.rmtree(weights, ignore_errors=True)
    shutil.copytree(kept, weights, ignore=shutil.ignore_patterns(SEAL, RECIPE))


def _metrics(points: Sequence[CurvePoint], step: int, train: Sequence[Any]) -> dict[str, float]:
    by_step = {point.step: point for point in points}
    losses = [point.loss for point in points if point.loss is not None]
    found = {
        "rows": float(len(train)),
        "steps": float(max(by_step)),
        "train_loss_first": losses[0],
        "train_loss_last": losses[-1],
        "validation_loss_start": by_step[0].validation_loss,
        "validation_loss": by_step[step].validation_loss,
        "validation_accuracy_start": by_step[0].validation_accuracy,
        "validation_accuracy": by_step[step].validation_accuracy,
    }
    return {name: value for name, value in found.items() if value is not None}
