"""Token parity: what TRL made of the rows is, token by token, what evaluation and serving will render."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from data_contracts.errors import BadInput
from pipelines.stages.train.job import TrainJob
from pipelines.stages.train.rows import prompt_tokens, rendered

Learned = tuple[tuple[int, ...], tuple[int, ...]]
"""Tokens of a conversation and their labels, -100 where none is learned."""


def check_tokens(job: TrainJob, tokenizer: Any, taught: Any, rows: Sequence[Any]) -> None:
    """Raises `BadInput` where the trainer's tokens, or for SFT its labels, are not the template's."""
    if "seq_lengths" in taught.column_names:
        if Counter(_unpacked(taught)) != Counter(_to_learn(job, tokenizer, row) for row in rows):
            raise BadInput(f"{job.stage}: the packed rows do not hold the template's tokens, each conversation once")
        return
    if len(taught) != len(rows):
        raise BadInput(
            f"{job.stage}: the trainer dropped rows; are prompts longer than max_length {job.recipe.max_length}?"
        )
    for number, (made, row) in enumerate(zip(taught, rows, strict=True), start=1):
        if not _equal(job, tokenizer, made, row):
            raise BadInput(f"{job.stage}, row {number} in training order: the trainer's tokens are not the template's")


def _equal(job: TrainJob, tokenizer: Any, made: dict[str, Any], row: Any) -> bool:
    match job.stage:
        case "sft":
            return (tuple(made["input_ids"]), tuple(made["labels"])) == _to_learn(job, tokenizer, row)
        case "grpo" | "distill":
            return bool(tokenizer(text=made["prompt"])["input_ids"] == prompt_tokens(tokenizer, row))
        case "preference":
            found = [made["prompt_ids"] + made[side] for side in ("chosen_ids", "rejected_ids")]
        case "kto":
            found = [made["prompt_ids"] + made["completion_ids"]]
        case "reward":
            found = [made["chosen_ids"], made["rejected_ids"]]
    return found == [each["input_ids"] for each in rendered(tokenizer, row)]


def _to_learn(job: TrainJob, tokenizer: Any, row: Any) -> Learned:
    (tokens,) = rendered(tokenizer, row)
    learned = tokens["assistant_masks"] if job.recipe.sft.assistant_only_loss else [1] * len(tokens["input_ids"])
    labels = [token if mask else -100 for token, mask in zip(tokens["input_ids"], learned, strict=True)]
    return tuple(tokens["input_ids"]), tuple(labels)


def _unpacked(taught: Any) -> list[Learned]:
    found: list[Learned] = []
    for made in taught:
        start = 0
        for length in made["seq_lengths"]:
            part = slice(start, start + length)
            found.append((tuple(made["input_ids"][part]), tuple(made["labels"][part])))
            start += length
    return found
