"""The TRL trainer of each objective, set as the recipe says. Part of the trainer program: it imports torch."""

from typing import Any

import torch
from trl import (
    DistillationConfig,
    DistillationTrainer,
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)
from trl.trainer import utils as trl_utils

from data_contracts.errors import Unavailable
from pipelines.recipes.objectives import Distill, Grpo, Kto, Preference, RewardModel, Sft
from pipelines.stages.train import ranks
from pipelines.stages.train.anchor import hold_to_base
from pipelines.stages.train.drawn import as_dataset
from pipelines.stages.train.job import RunFiles, TrainJob
from pipelines.stages.train.model import load_frozen_base, load_teacher
from pipelines.stages.train.parity import check_tokens
from pipelines.stages.train.rewards import as_trl
from pipelines.stages.train.rows import order


def make_trainer(
    job: TrainJob, model: Any, tokenizer: Any, train: list[Any], validation: list[Any], fresh: bool
) -> Any:
    """The trainer of the job's objective over rows as `drawn` gives them. ``fresh``: not resumed from a checkpoint."""
    _score_answers_only()
    options = _options(job, fresh)
    within = {"max_length": job.recipe.max_length}
    sets = {"train_dataset": as_dataset(job, train, tokenizer), "eval_dataset": as_dataset(job, validation, tokenizer)}
    given = {"model": model, "processing_class": tokenizer, **sets}
    match job.recipe.section(job.stage):
        case Sft() as section:
            made = SFTTrainer(args=SFTConfig(**options, **within, **_sft(section)), **given)
        case Preference() as section:
            config = DPOConfig(
                **options,
                **within,
                loss_type=list(section.loss_type),
                beta=section.beta,
                label_smoothing=section.label_smoothing,
                # Taken now, while the policy still is the parent: the reference is the SFT model, not the bare base.
                precompute_ref_log_probs=True,
            )
            made = DPOTrainer(args=config, **given)
        case Kto() as section:
            config = KTOConfig(
                **options,
                **within,
                beta=section.beta,
                desirable_weight=section.desirable_weight,
                undesirable_weight=section.undesirable_weight,
                precompute_ref_log_probs=True,
            )
            made = KTOTrainer(args=config, **given)
        case RewardModel() as section:
            config = RewardConfig(**options, **within, center_rewards_coefficient=section.center or None)
            made = RewardTrainer(args=config, **given)
            # Under a 4-bit base TRL makes all that is trained bfloat16, which a float32 run cannot multiply by.
            for parameter in (each for name, each in model.named_parameters() if ".score." in name):
                parameter.data = parameter.data.float()
        case Grpo() as section:
            config = GRPOConfig(
                **options,
                **_answering(section),
                num_generations=section.generations,
                num_generations_eval=1,
                beta=section.beta,
                reward_weights=list(section.rewards.values()),
            )
            made = GRPOTrainer(args=config, reward_funcs=[as_trl(name) for name in section.rewards], **given)
        case Distill() as section:
            config = DistillationConfig(**options, **_answering(section), beta=section.divergence)
            made = DistillationTrainer(args=config, teacher_model=load_teacher(job, tokenizer), **given)
    for taught, rows in ((made.train_dataset, train), (made.eval_dataset, validation)):
        check_tokens(job, tokenizer, taught, rows)
    if isinstance(section, Sft):
        if section.packing:
            drawn = order(len(made.train_dataset), section.schedule.rows, job.recipe.seed)
            made.train_dataset = made.train_dataset.select(drawn)
        if section.kl > 0:
            hold_to_base(made, section.kl, lambda: load_frozen_base(job))
    return made


def _options(job: TrainJob, fresh: bool) -> dict[str, Any]:
    """What every trainer is told."""
    recipe, schedule = job.recipe, job.recipe.schedule(job.stage)
    return {
        "output_dir": str(RunFiles(job.run_dir).work),
        "seed": recipe.seed,
        "max_steps": schedule.steps,
        "per_device_train_batch_size": schedule.batch_size // ranks.count(),
        # A loss is a batch's mean: in any number of processes the same batches, or each row by itself.
        "per_device_eval_batch_size": 1 if schedule.select == "one_standard_error" else schedule.batch_size,
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
        **ranks.options(recipe.parallel),
    }


def _sft(section: Sft) -> dict[str, Any]:
    return {
        "assistant_only_loss": section.assistant_only_loss,
        "packing": section.packing,
        "eval_packing": False,  # a validation loss that does not depend on it
        "neftune_noise_alpha": section.neftune_alpha,
        "label_smoothing_factor": section.label_smoothing,
    }


def _answering(section: Grpo | Distill) -> dict[str, Any]:
    """The model's own answers: sampled, by this step's weights, to the prompts in their order."""
    return {
        "max_completion_length": section.max_tokens,
        "temperature": section.temperature,
        "shuffle_dataset": False,
    }


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
