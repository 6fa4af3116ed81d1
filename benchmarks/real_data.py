"""The line on real data: Banking77 intents as JSON by SFT, HH-RLHF harmless pairs by DPO; accuracy before and after.

    python benchmarks/real_data.py --data FOLDER [--out .assay-bench] [--items 1540]

The product is benchmarks/real/banking77.yaml. FOLDER holds sft/banking77_train.jsonl, sft/banking77_test_even.jsonl
and pref/hh_harmless_test_a.jsonl. Before: the base with all 77 labels in its prompt and a JSON schema that admits
nothing else. After: the adapter, asked plainly.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from data_contracts.digests import sha256_json
from data_contracts.manifests import CheckpointManifest
from evals.chat import ask_all
from evals.stats import Score, wilson
from pipelines.recipes.product import load_product
from pipelines.settings import Settings
from pipelines.stages.data import steps as data
from pipelines.stages.train import steps as train
from pipelines.wiring import Line
from resources.trainer_launcher import SubprocessLauncher

PRODUCT = Path(__file__).parent / "real" / "banking77.yaml"


def timed(title: str, work: Any) -> Any:
    started = time.monotonic()
    made, hit = work()
    counts = getattr(made, "counts", None)
    print(f"{title:<16} {time.monotonic() - started:7.1f} s{' (hit)' if hit else ''}  {counts or ''}", flush=True)
    return made


def accuracy(line: Line, template: str, name: str, rows: list[dict[str, Any]], labels: list[str] | None) -> list[bool]:
    """Right or wrong by row; with ``labels`` the model is shown them and can answer nothing else."""
    system = [
        {"role": "system", "content": "Answer with the intent of the question, one of: " + ", ".join(labels or [])}
    ]
    schema = {
        "type": "object",
        "properties": {"intent": {"enum": labels}},
        "required": ["intent"],
        "additionalProperties": False,
    }
    questions: dict[str, dict[str, Any]] = {}
    for row in rows:
        user = {"role": "user", "content": row["text"]}
        body = {"model": name, "temperature": 0, "max_tokens": 32, "chat_template": template}
        body |= {"messages": [*system, user] if labels else [user]}
        body |= {"structured_outputs": {"json": schema}} if labels else {}
        questions[str(row["src_row"])] = body
    answers: dict[str, str] = {}
    ask_all(line.server.url(), questions, answers.__setitem__)
    return [_intent(answers[str(row["src_row"])]) == row["category"] for row in rows]


def _intent(text: str) -> str | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value.get("intent") if isinstance(value, dict) else None


def report(title: str, right: list[bool]) -> None:
    share = wilson([Score(item=str(row), cluster=str(row), value=float(value)) for row, value in enumerate(right)])
    print(f"{title:<24} {share.estimate:.3f}  95% [{share.low:.3f}, {share.high:.3f}]  n={len(right)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(".assay-bench"))
    parser.add_argument("--items", type=int, default=1540)
    chosen = parser.parse_args()
    line = Line(Settings(home=chosen.out))
    os.environ["ASSAY_DATA"] = str(chosen.data.resolve())
    made = load_product(str(PRODUCT))
    raw = timed("raw", lambda: data.raw(line, made))
    contracted = timed("contracted", lambda: data.contracted(line, made, raw))
    ledgered = timed("ledger", lambda: data.ledgered(line, made, contracted))
    scrubbed = timed("scrubbed", lambda: data.scrubbed(line, made, ledgered))
    deduplicated = timed("deduplicated", lambda: data.deduplicated(line, made, scrubbed))
    clean = timed("decontaminated", lambda: data.decontaminated(line, made, deduplicated))
    mixture = timed("mixture", lambda: data.mixture(line, made, clean))
    splits = timed("splits", lambda: data.splits(line, made, mixture))
    pairs = timed("preferences", lambda: data.preferences(line, made, mixture))
    base = timed("base", lambda: train.base(line, made, line.settings.base_model))
    launcher = SubprocessLauncher()
    sft: CheckpointManifest = timed("sft", lambda: train.sft(line, made, base, splits, launcher))
    dpo: CheckpointManifest = timed("dpo", lambda: train.tuned(line, made, base, sft, splits, pairs, launcher))
    for stage, checkpoint in (("sft", sft), ("dpo", dpo)):
        print(stage, {k: round(v, 4) for k, v in checkpoint.metrics.items()}, flush=True)
    rows = [json.loads(row) for row in (chosen.data / "sft/banking77_test_even.jsonl").read_text().splitlines()]
    rows = sorted(rows, key=lambda row: sha256_json(row))[: chosen.items]
    labels = sorted({row["category"] for row in rows})
    template = made.file("template", made.template).read_text()
    line.server.ensure_running(base)
    try:
        report("base, labels and schema", accuracy(line, template, line.server.base_name(), rows, labels))
        report("after SFT", accuracy(line, template, line.server.ensure_loaded(sft.weights), rows, None))
        report("after SFT and DPO", accuracy(line, template, line.server.ensure_loaded(dpo.weights), rows, None))
    finally:
        line.supervisor.down()


if __name__ == "__main__":
    main()
