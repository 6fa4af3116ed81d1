"""One training run, from top to bottom. Part of the trainer program: it imports torch."""

import json
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

from data_contracts.digests import Digest
from data_contracts.errors import Tampered
from pipelines.recipes.objectives import Schedule
from pipelines.stages.train import ranks
from pipelines.stages.train.checkpoints import Checkpoints, Facts
from pipelines.stages.train.drawn import drawn_rows
from pipelines.stages.train.environment import describe
from pipelines.stages.train.estimate import check_fits
from pipelines.stages.train.guards import Watchman
from pipelines.stages.train.job import CurvePoint, RunFiles, TrainJob, TrainResult, Trip
from pipelines.stages.train.keeper import Keeper
from pipelines.stages.train.model import load_model, load_tokenizer, save_weights
from pipelines.stages.train.note import RECIPE, noted
from pipelines.stages.train.probes import Prober
from pipelines.stages.train.progress import Sink
from pipelines.stages.train.rows import longest
from pipelines.stages.train.sweep import RowLosses, best_step, with_errors
from pipelines.stages.train.trainers import make_trainer
from pipelines.stages.train.watch import Stop, Watch, curve, stalled, watch_steps


def fit(job: TrainJob, sinks: Sequence[Sink], stop: Stop, trips: Sequence[Trip] = ()) -> TrainResult | None:
    """Train, or go on training, and leave the weights of the best validated step in ``run_dir/weights``.

    ``None`` when it was told to stop: there is a checkpoint then to resume from. Raises `RollBack` to be called again
    with its ``trips``.
    """
    files = RunFiles(job.run_dir)
    checkpoints, sweep = Checkpoints(f"{job.kept_at}/checkpoints"), Checkpoints(f"{job.kept_at}/sweep")
    recipe, schedule = job.recipe, job.recipe.schedule(job.stage)
    # Every result, and so every name made from it, must come out the same from the same job.
    torch.use_deterministic_algorithms(recipe.deterministic)
    # That would fill memory before it is used, to find reads of unset memory: 7 % of a step.
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # not in torch's stubs
    set_seed(recipe.seed)  # TRL would build the adapter before it seeds
    datasets.disable_caching()  # rows stay in memory: erasure need not look for copies
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    if ranks.is_main():
        files.environment.write_text(json.dumps(describe()))

    tokenizer = load_tokenizer(job)
    train, validation = drawn_rows(job, "train", tokenizer), drawn_rows(job, "validation", tokenizer)
    check_fits(job, longest(tokenizer, train))
    ranks.join()
    resume_from, facts = ranks.told(lambda: _resume(files.work, checkpoints, recipe.digest, again=bool(trips)))
    os.environ["TMPDIR"] = str(files.work)  # what `datasets` writes of rows, DPO's reference scores, goes with the run
    ranks.share_reference_scores(files.work)
    model = load_model(job)
    trainer = make_trainer(job, model, tokenizer, train, validation, fresh=resume_from is None)
    ranks.seed(recipe.seed)
    watchman = Watchman(recipe.guards, trips=trips)
    if facts is not None:
        watchman = Watchman(recipe.guards, facts.losses, trips or facts.trips, facts.probes)

    def keep(step: int) -> None:
        if not ranks.is_main():
            return
        part = files.work / f"sweep-{step}"
        shutil.rmtree(part, ignore_errors=True)
        save_weights(model, tokenizer, job, part)
        (part / RECIPE).write_bytes(noted(recipe))
        sweep.write_folder(step, part)
        shutil.rmtree(part)

    with Keeper(job, checkpoints, watchman, schedule.checkpoint_every) as keeper:
        watch_steps(trainer, watchman, keeper)
        row_losses = RowLosses(f"{job.kept_at}/sweep") if schedule.select == "one_standard_error" else None
        if row_losses is not None:
            row_losses.watch(trainer)
        prober = None if recipe.probes is None else Prober(job, recipe.probes, model, tokenizer)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(
            Watch(
                watchman,
                schedule.clip_norm,
                schedule.patience,
                sinks,
                stop,
                keeper,
                keep,
                prober,
                row_losses,
            )
        )
        if ranks.anywhere(stop.asked):
            return None
        if resume_from is not None:
            trainer.state = TrainerState.load_from_json(str(resume_from / "trainer_state.json"))
        if not _ended(trainer.state, schedule):
            trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
    if not _ended(trainer.state, schedule):
        return None

    points = curve(trainer.state.log_history)
    rows = row_losses.read(points) if row_losses is not None else {}
    points = with_errors(points, rows)
    step = best_step(points, rows, schedule.select)
    if ranks.is_main():
        _take(sweep, step, files.weights)
    return TrainResult(
        step=step,
        metrics=_metrics(points, step, train) | watchman.counts(),
        curve=points,
        environment=describe(),
        trips=tuple(watchman.trips),
    )


def _ended(state: TrainerState, schedule: Schedule) -> bool:
    """Whether all steps were taken, or early stopping found that more would not help."""
    return state.global_step >= schedule.steps or stalled(curve(state.log_history), schedule.patience)


def _resume(work: Path, checkpoints: Checkpoints, recipe: Digest, again: bool) -> tuple[Path | None, Facts | None]:
    """A copy of the newest whole checkpoint of this recipe, and what it says; ``again``: after a roll back."""
    shutil.rmtree(work, ignore_errors=True)
    if again:
        checkpoints.back_to_scheduled()
    for step in checkpoints.steps():
        facts = checkpoints.facts(step)
        if facts is not None and facts.recipe == recipe and checkpoints.fetch(step, work / "resume"):
            print(f"resuming from step-{step}", flush=True)
            return work / "resume", facts
        print(f"checkpoint step-{step} is damaged or incomplete and is passed over", flush=True)
    return None, None


def _take(sweep: Checkpoints, step: int, weights: Path) -> None:
    shutil.rmtree(weights, ignore_errors=True)
    if not sweep.fetch(step, weights):
        raise Tampered(f"step-{step} in {sweep.root} is not as it was saved: delete the run directory and train again")
    (weights / RECIPE).unlink()


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
