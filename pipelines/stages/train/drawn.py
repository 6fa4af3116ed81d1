"""The rows that a run sees: read, checked, drawn in a fixed order, and as the columns that TRL reads."""

from collections.abc import Sequence
from typing import Any, Literal

from datasets import Dataset, Features, Json, List, Value

from data_contracts.errors import BadInput
from data_contracts.manifests import Stage
from data_contracts.records import ChatExample, PreferencePair
from pipelines.recipes.objectives import Distill, Grpo, Sft
from pipelines.stages.train.job import TrainJob
from pipelines.stages.train.rewards import is_verifiable
from pipelines.stages.train.rows import (
    check_prompts,
    check_rows,
    kto_columns,
    order,
    preference_columns,
    prompt_columns,
    read_rows,
    sft_columns,
)

_MESSAGES = List({"role": Value("string"), "content": Value("string")})
_KWARGS = {"chat_template_kwargs": Json()}
"""As plain Arrow structs, as `datasets` infers, all tools would get the union of their parameters."""
_PAIRS = Features({"prompt": _MESSAGES, "chosen": _MESSAGES, "rejected": _MESSAGES, **_KWARGS})
_PROMPTS = Features({"prompt": Value("string"), "offered": Value("string"), "expected": Value("string")})
_FEATURES: dict[Stage, Features] = {
    "sft": Features({"messages": _MESSAGES, **_KWARGS}),
    "preference": _PAIRS,
    "kto": Features({"prompt": _MESSAGES, "completion": _MESSAGES, "label": Value("bool"), **_KWARGS}),
    "reward": _PAIRS,
    "grpo": _PROMPTS,
    "distill": _PROMPTS,
}


def drawn_rows(job: TrainJob, split: Literal["train", "validation"], tokenizer: Any) -> list[Any]:
    """The rows of a split that this run will see, in order: chats, pairs, or for `kto` sides of pairs."""
    recipe, section = job.recipe, job.recipe.section(job.stage)
    path = job.train_rows if split == "train" else job.validation_rows
    names, where = job.row_names[split], f"{job.product}, {job.stage} {split} rows"
    rows: list[Any] = read_rows(path, PreferencePair if job.stage in ("preference", "kto", "reward") else ChatExample)
    if isinstance(section, Grpo | Distill):
        check_prompts(tokenizer, rows, names, recipe.max_length, section.max_tokens, where)
    else:
        answers_only = not isinstance(section, Sft) or section.assistant_only_loss
        check_rows(tokenizer, rows, names, recipe.max_length, where, answers_only)
    if isinstance(section, Grpo):
        rows = _verifiable(rows, where)
    if job.stage == "kto":
        rows = [(pair, wanted) for pair in rows for wanted in (True, False)]
    if split == "validation":
        count = min(section.schedule.eval_rows, len(rows))
    elif isinstance(section, Sft) and section.packing:
        count = len(rows)  # `trainers` draws the packed rows
    else:
        count = section.schedule.rows // (section.generations if isinstance(section, Grpo) else 1)
    return [rows[index] for index in order(len(rows), count, recipe.seed)]


def as_dataset(job: TrainJob, rows: Sequence[Any], tokenizer: Any) -> Dataset:
    match job.stage:
        case "sft":
            columns = sft_columns(rows)
        case "kto":
            columns = kto_columns(rows)
        case "grpo" | "distill":
            columns = prompt_columns(tokenizer, rows)
        case _:
            columns = preference_columns(rows)
    return Dataset.from_dict(columns, features=_FEATURES[job.stage])


def _verifiable(rows: Sequence[ChatExample], where: str) -> list[ChatExample]:
    kept = [row for row in rows if is_verifiable(row)]
    if not kept:
        raise BadInput(
            f"{where}: no row's answer is a call of a tool on offer or words in the answer's form "
            "(evals/answers.py), so that none can be rewarded; use another objective"
        )
    if len(kept) < len(rows):
        print(
            f"{where}: {len(rows) - len(kept)} of {len(rows)} have no verifiable answer and are not asked", flush=True
        )
    return kept
