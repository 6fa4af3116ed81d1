"""One training run, from top to bottom. Part of the trainer program: it imports torch."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import datasets
import torch
import torch.utils.deterministic as deterministic
from datasets import Dataset, Features, Json, List, Value
from transformers import PrinterCallback, TrainerState, set_seed
from transformers.utils import logging
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl.trainer import utils as trl_utils

from data_contracts.errors import BadInput, Tampered, Unavailable
from data_contracts.records import ChatExample, PreferencePair
from pipelines.recipes.objectives import Schedule
from pipelines.stages.train.checkpoints import SEAL, is_whole, newest_whole, seal, step_of
from pipelines.stages.train.environment import describe
from pipelines.stages.train.guards import Watchman
from pipelines.stages.train.job import CurvePoint, RunFiles, TrainJob, TrainResult
from pipelines.stages.train.model import load_model, load_tokenizer, save_weights
from pipelines.stages.train.progress import Sink
from pipelines.stages.train.rows import check_rows, order, preference_columns, read_rows, rendered, sft_columns
from pipelines.stages.train.watch import Stop, Watch, curve, guard_loss

_MESSAGES = List({"role": Value("string"), "content": Value("string")})
_KWARGS = {"chat_template_kwargs": Json()}
"""As plain Arrow structs, as `datasets` infers, all tools would get the union of their parameters."""
_FEATURES = {
    "sft": Features({"messages": _MESSAGES, **_KWARGS}),
    "preference": Features({"prompt": _MESSAGES, "chosen": _MESSAGES, "rejected": _MESSAGES, **_KWARGS}),
}


def fit(job: TrainJob, sinks: Sequence[Sink], stop: Stop) -> TrainResult | None:
    """Train, or go on training, and leave the weights of the best validated step in ``run_dir/weights``.

    ``None`` when it was told to stop: the run directory then holds a checkpoint to resume from.
    """
    files = RunFiles(job.run_dir)
    recipe, schedule = job.recipe, job.recipe.schedule(job.stage)
    # Every result, and so every name made from it, must come out the same from the same job.
    torch.use_deterministic_algorithms(True)
    # That would fill memory before it is used, to find reads of unset memory: 7 % of a step.
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # not in torch's stubs
    set_seed(recipe.seed)  # TRL would build the adapter before it seeds
    datasets.disable_caching()  # rows stay in memory: erasure need not look for copies
    datasets.disable_progress_bars()
    logging.disable_progress_bar()

    tokenizer = load_tokenizer(job)
    train, validation = _rows(job, schedule, tokenizer)
    resume_from = _resume(files)
    os.environ["TMPDIR"] = str(files.work)  # what `datasets` writes of rows, DPO's reference scores, goes with the run
    model = load_model(job)
    _score_answers_only()
    trainer = _trainer(job, schedule, model, tokenizer, train, validation, fresh=resume_from is None)
    watchman = Watchman(recipe.guards)
    guard_loss(trainer, watchman)

    def keep(target: Path) -> None:
        part = files.work / f"sweep-{target.name}"
        shutil.rmtree(part, ignore_errors=True)
        save_weights(model, tokenizer, job, part)
        seal(part, target)

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Watch(watchman, schedule.clip_norm, files, sinks, stop, keep))
    if stop.asked:
        return None
    if resume_from is not None and step_of(resume_from) == schedule.steps:
        trainer.state = TrainerState.load_from_json(str(resume_from / "trainer_state.json"))
    else:
        trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
    if trainer.state.global_step < schedule.steps:
        return None

    points = curve(trainer.state.log_history)
    step = best_step(points)
    _take(files.sweep / f"step-{step}", files.weights)
    return TrainResult(step=step, metrics=_metrics(points, step, train), curve=points, environment=describe())


def best_step(points: Sequence[CurvePoint]) -> int:
    """The trained step with the least validation loss; the earliest of equals."""
    validated = [(point.validation_loss, point.step) for point in points if point.step and point.validation_loss]
    return min(validated)[1]


def _rows(job: TrainJob, schedule: Schedule, tokenizer: Any) -> tuple[list[Any], list[Any]]:
    """The rows that this run will see, checked and drawn in a fixed order."""
    kind: type[ChatExample] | type[PreferencePair] = ChatExample if job.stage == "sft" else PreferencePair
    sources: dict[Literal["train", "validation"], tuple[Path, int]] = {
        "train": (job.train_rows, schedule.rows),
        "validation": (job.validation_rows, schedule.eval_rows),
    }
    drawn: list[list[Any]] = []
    for split, (path, count) in sources.items():
        rows: list[Any] = read_rows(path, kind)
        where = f"{job.product}, {job.stage} {split} rows"
        check_rows(tokenizer, rows, job.row_names[split], job.recipe.max_length, where)
        wanted = count if split == "train" else min(count, len(rows))
        drawn.append([rows[index] for index in order(len(rows), wanted, job.recipe.seed)])
    return drawn[0], drawn[1]


def _dataset(job: TrainJob, rows: Sequence[Any]) -> Dataset:
    columns = sft_columns(rows) if job.stage == "sft" else preference_columns(rows)
    return Dataset.from_dict(columns, features=_FEATURES[job.stage])


def _score_answers_only() -> None:
    """Project only the positions that have a label through the output layer.

    TRL does so where Triton runs, and elsewhere scores the prompts too and throws that away: on a CPU some 40 % of a
    step. The one use of this name in that module is that decision.
    """
    if not hasattr(trl_utils, "_use_triton"):
        raise Unavailable(
            "this version of trl decides elsewhere what to score: pin the version in requirements/core.txt"
        )
    trl_utils._use_triton = lambda device: True


def _resume(files: RunFiles) -> Path | None:
    shutil.rmtree(files.work, ignore_errors=True)
    checkpoint, damaged = newest_whole(files.checkpoints)
    for folder in damaged:
        print(f"checkpoint {folder.name} is damaged or incomplete and is passed over", flush=True)
    if checkpoint is not None:
        print(f"resuming from {checkpoint.name}", flush=True)
    return checkpoint


def _trainer(
    job: TrainJob, schedule: Schedule, model: Any, tokenizer: Any, train: list[Any], validation: list[Any], fresh: bool
) -> Any:
    recipe = job.recipe
    options: dict[str, Any] = {
        "output_dir": str(RunFiles(job.run_dir).work),
        "seed": recipe.seed,
        "max_steps": schedule.steps,
        "per_device_train_batch_size": schedule.batch_size,
        "per_device_eval_batch_size": schedule.batch_size,
        "gradient_accumulation_steps": schedule.accumulate,
        "learning_rate": schedule.learning_rate,
        "warmup_steps": schedule.warmup_steps,
        "lr_scheduler_type": schedule.scheduler,
        "weight_decay": schedule.weight_decay,
        "max_grad_norm": 0.0,  # `Watch` clips, so that it sees the norm first
        "optim": recipe.optimizer,
        "bf16": recipe.precision == "bf16",
        "use_cpu": not torch.cuda.is_available(),
        "activation_checkpointing": recipe.activation_checkpointing,
        "max_length": recipe.max_length,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps",
        "eval_steps": schedule.eval_every,
        "eval_on_start": fresh,
        "save_strategy": "steps",
        "save_steps": schedule.checkpoint_every,
        "train_sampling_strategy": "sequential",  # the rows come in the order of their batches
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    sets = {"train_dataset": _dataset(job, train), "eval_dataset": _dataset(job, validation)}
    data = {**sets, "processing_class": tokenizer}
    if recipe.preference is None or job.stage == "sft":
        made = SFTTrainer(model=model, args=SFTConfig(**options, assistant_only_loss=True), **data)
    else:
        config = DPOConfig(
            **options,
            loss_type=list(recipe.preference.loss_type),
            beta=recipe.preference.beta,
            label_smoothing=recipe.preference.label_smoothing,
            # Taken now, while the policy still is the parent: the reference is the SFT model, not the bare base.
            precompute_ref_log_probs=True,
        )
        made = DPOTrainer(model=model, args=config, **data)
    for taught, rows in ((made.train_dataset, train), (made.eval_dataset, validation)):
        _check_tokens(job, tokenizer, taught, rows)
    return made


def _check_tokens(job: TrainJob, tokenizer: Any, taught: Any, rows: Sequence[Any]) -> None:
    """What TRL made of the rows is, token by token, what evaluation and serving will render. Raises `BadInput`."""
    if len(taught) != len(rows):
        raise BadInput(
            f"{job.stage}: the trainer dropped rows; are prompts longer than max_length {job.recipe.max_length}?"
        )
    for number, (made, row) in enumerate(zip(taught, rows, strict=True), start=1):
        if job.stage == "sft":
            found = [made["input_ids"]]
        else:
            found = [made["prompt_ids"] + made[side] for side in ("chosen_ids", "rejected_ids")]
        if found != [each["input_ids"] for each in rendered(tokenizer, row)]:
            raise BadInput(f"{job.stage}, row {number} in training order: the trainer's tokens are not the template's")


def _take(kept: Path, weights: Path) -> None:
    if not is_whole(kept):
        raise Tampered(f"{kept} is not as it was saved: delete the run directory and train again")
    shutil.rmtree(weights, ignore_errors=True)
    shutil.copytree(kept, weights, ignore=shutil.ignore_patterns(SEAL))


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
