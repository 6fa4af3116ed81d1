"""Rows, recipes and jobs for training tests: small enough that a run takes seconds."""

import json
from pathlib import Path
from typing import Any

from data_contracts.digests import sha256_bytes
from data_contracts.records import ChatExample, Message, PreferencePair, ToolSpec
from pipelines.recipes.product import ROOT
from pipelines.recipes.recipe import Recipe
from pipelines.stages.train.job import TrainJob

TEMPLATE = ROOT / "pipelines" / "templates" / "billing-assistant.jinja"
TOOLS = (
    ToolSpec(name="get_invoice", description="look up an invoice", parameters={"invoice_id": "its number"}),
    ToolSpec(name="cancel_subscription", description="end a plan", parameters={"plan": "its name"}),
)
_SCHEDULE = {
    "learning_rate": 0.01,
    "steps": 6,
    "batch_size": 2,
    "accumulate": 1,
    "warmup_steps": 1,
    "scheduler": "linear",
    "weight_decay": 0.0,
    "clip_norm": 1.0,
    "checkpoint_every": 2,
    "eval_every": 3,
    "eval_rows": 4,
}


def make_recipe(method: str = "lora", **changes: Any) -> Recipe:
    """A recipe of six steps; ``changes`` replace top-level keys, ``sft`` and ``dpo`` single keys of the schedules, and
    ``learning`` the other keys of the SFT section. See `make_tuning` for what may follow SFT instead of DPO."""
    sft, dpo, learning = changes.pop("sft", {}), changes.pop("dpo", {}), changes.pop("learning", {})
    lora = {"rank": 4, "alpha": 8, "dropout": 0.1, "targets": ["q_proj", "v_proj", "down_proj"]}
    return Recipe.model_validate(
        {
            "method": method,
            "precision": "fp32",
            "optimizer": "adamw_torch",
            "seed": 5,
            "max_length": 512,
            "activation_checkpointing": False,
            "lora": None if method == "full" else lora,
            "guards": {"max_loss_ratio": 10.0, "window": 4, "max_grad_norm": 10000.0},
            "sft": {"schedule": _SCHEDULE | sft, **learning},
            "preference": {"loss_type": ["sigmoid"], "beta": 0.1, "schedule": _SCHEDULE | dpo},
            **changes,
        }
    )


TUNINGS: dict[str, dict[str, Any]] = {
    "preference": {"loss_type": ["sigmoid"], "beta": 0.1},
    "kto": {"beta": 0.1},
    "reward": {},
    "grpo": {"rewards": {"json_valid": 0.4, "exact": 0.6}, "generations": 4, "max_tokens": 8, "beta": 0.02},
    "distill": {"teacher": "tiny", "divergence": 0.5, "max_tokens": 8},
}


def make_tuning(stage: str, schedule: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Changes for `make_recipe`: this objective after SFT, with ``changes`` of its keys."""
    section = TUNINGS[stage] | changes | {"schedule": _SCHEDULE | (schedule or {})}
    return {"preference": None, stage: section}


def make_chats(count: int) -> list[ChatExample]:
    """Short conversations in which the tool follows from the words."""
    chats = []
    for number in range(count):
        tool, words = (TOOLS[0], "show") if number % 2 else (TOOLS[1], "stop")
        arguments = dict.fromkeys(tool.parameters, f"X{number}")
        answer = json.dumps({"tool": tool.name, "arguments": arguments})
        messages = (Message(role="user", content=f"{words} X{number}"), Message(role="assistant", content=answer))
        chats.append(ChatExample(messages=messages, tools=TOOLS))
    return chats


def make_pairs(count: int) -> list[PreferencePair]:
    return [
        PreferencePair(
            prompt=(chat.messages[0],), tools=chat.tools, chosen=chat.messages[1].content, rejected=f"no {number}"
        )
        for number, chat in enumerate(make_chats(count))
    ]


def write_rows(path: Path, rows: list[ChatExample] | list[PreferencePair]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(row.model_dump_json() + "\n" for row in rows))
    return path


def make_job(
    folder: Path,
    base: Path,
    recipe: Recipe,
    parent: Path | None = None,
    teacher: Path | None = None,
    rows: Any = None,
    **fields: Any,
) -> Path:
    """Write rows (ten, unless given) and a job file into ``folder``; what follows SFT in the recipe when there is a
    parent. ``fields`` are more fields of the job."""
    stage = "sft" if parent is None else recipe.tuning
    make = make_pairs if stage in ("preference", "kto", "reward") else make_chats
    rows = {"train": rows or make(10), "validation": make(4)}
    job = TrainJob(
        product="test-product",
        stage=stage or "sft",
        recipe=recipe,
        base=base,
        base_digest=sha256_bytes(b"tiny base"),
        template=TEMPLATE,
        train_rows=write_rows(folder / "rows" / "train.jsonl", rows["train"]),
        validation_rows=write_rows(folder / "rows" / "validation.jsonl", rows["validation"]),
        row_names={split: tuple(row.digest for row in found) for split, found in rows.items()},
        parent=parent,
        teacher=teacher,
        run_dir=folder,
        **fields,
    )
    path = folder / "job.json"
    path.write_text(job.model_dump_json())
    return path
