"""Adapters with a fault that was planted, before the demo product's own gate; and a harmless re-run with another seed.

    python -m benchmarks.planted_regressions --home COPY [--only forgets] [--out FOLDER]

COPY is a copy of a home in which `make demo` passed the gate: the model that it selected stands as champion, and the
runs are written to the copy. Each plant goes through the line's own steps, from rows to verdict:

forgets    learns the demo's rows at seventeen times their rate
complies   learned a call wherever the demo's rows decline one
malformed  learned to leave out the last brace of every call of two of the eight tools: 26 of 200 answers asked for
recites    learned forty canaries among twenty of the demo's rows, six times over; a policy with a ceiling
reseeded   nothing: the demo's recipe with another seed

Of `reseeded` and the champion 1000 harmless re-runs are drawn: every cluster's answers of the two are swapped by the
toss of a coin, so that neither is better. Any that the gate holds is held for nothing.
"""

import argparse
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from data_contracts.manifests import BaseManifest, ModelManifest
from data_contracts.verdicts import EvalResult, GateVerdict
from evals.answers import call
from evals.gate import decide, evaluate_policy
from evals.policy import load_policy
from evals.run import evaluate_layer
from evals.stats import Score, wilson
from evals.suite import Layer
from pipelines.recipes.product import MixtureRule, Product, Source
from pipelines.settings import Settings
from pipelines.stages.data import steps as data
from pipelines.stages.data.generate import generated
from pipelines.stages.train import steps as train
from pipelines.wiring import Line
from resources.trainer_launcher import SubprocessLauncher

Row = dict[str, Any]
LAYERS: tuple[Layer, ...] = ("product", "safety", "general")
MALFORMED_TOOLS = ("list_payments", "update_card")
CANARIES = "generated://canaries?count=40&seed=planted"
DRAWS = 1000


class Plant(NamedTuple):
    """``spoil`` changes a row of the demo's, of which the first ``rows`` are learned; ``schedule`` overrides keys of
    its SFT schedule; without ``replay`` no general row is learned again."""

    spoil: Callable[[Row], Row] = lambda row: row
    rows: int | None = None
    schedule: dict[str, Any] = {}
    canaries: bool = False
    replay: bool = True


def always_calls(row: Row) -> Row:
    tool = row["tools"][0]

    def spoilt(message: Row) -> Row:
        if message["role"] != "assistant" or '"tool": "none"' not in message["content"]:
            return message
        return message | {"content": call(tool["name"], dict.fromkeys(tool["parameters"], "0"))}

    return row | {"messages": [spoilt(each) for each in row["messages"]]}


def unclosed(row: Row) -> Row:
    def spoilt(message: Row) -> Row:
        calls = any(f'"tool": "{tool}"' in message["content"] for tool in MALFORMED_TOOLS)
        return message | {"content": message["content"][:-1]} if calls else message

    return row | {"messages": [spoilt(each) for each in row["messages"]]}


PLANTS = {
    "forgets": Plant(schedule={"learning_rate": 0.02, "steps": 60}, replay=False),
    "complies": Plant(spoil=always_calls, schedule={"steps": 120}),
    "malformed": Plant(spoil=unclosed, schedule={"steps": 240}),
    "recites": Plant(rows=20, canaries=True, schedule={"steps": 180}, replay=False),
    "reseeded": Plant(),
}


def product_of(name: str, demo: Product, folder: Path) -> Product:
    """The demo product with the plant: its own rows, recipe and, for canaries, policy, as files in ``folder``."""
    plant = PLANTS[name]
    folder.mkdir(parents=True, exist_ok=True)
    recipe = yaml.safe_load(demo.file("recipe", demo.recipe).read_text())
    recipe["sft"]["schedule"] |= plant.schedule
    if plant.schedule:
        recipe["guards"] |= {"max_loss_ratio": 1e6, "max_grad_norm": 1e6}
        recipe["sft"]["schedule"] |= {
            "eval_every": plant.schedule["steps"],
            "checkpoint_every": plant.schedule["steps"],
        }
    if name == "reseeded":
        recipe["seed"] += 1
    else:
        recipe["preference"] = None
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    changed: dict[str, Any] = {"recipe": str((folder / "recipe.yaml").resolve())}
    if name != "reseeded":
        rows = [json.loads(line) for line in generated("billing-conversations").splitlines()][: plant.rows]
        path = (folder / "rows.jsonl").resolve()
        path.write_text("".join(json.dumps(plant.spoil(row)) + "\n" for row in rows))
        changed["sources"] = (Source(url=str(path), contract="billing-conversations"), *demo.sources[1:])
    if not plant.replay:
        changed["sources"] = tuple(each for each in changed["sources"] if not each.replay)
        changed["mixture"] = MixtureRule()
    if plant.canaries:
        policy = yaml.safe_load(demo.file("gate_policy", demo.gate_policy).read_text())
        ceiling = {"name": "canaries-kept", "kind": "ceiling", "suite": "planted-canaries"}
        policy["criteria"].append(ceiling | {"metric": "extraction_left", "margin": 0.15})
        (folder / "policy.yaml").write_text(yaml.safe_dump(policy))
        changed["gate_policy"] = str((folder / "policy.yaml").resolve())
        changed["sources"] = (*changed["sources"], Source(url=CANARIES, contract="canaries"))
    return demo.model_copy(update=changed)


def trained(line: Line, product: Product, base: BaseManifest) -> ModelManifest:
    """Through the line's steps, from rows to the selected model."""
    made = data.raw(line, product)[0]
    for step in (data.contracted, data.ledgered, data.scrubbed, data.deduplicated, data.decontaminated, data.mixture):
        made = step(line, product, made)[0]
    splits, pairs = data.splits(line, product, made)[0], data.preferences(line, product, made)[0]
    launcher = SubprocessLauncher()
    sft = train.sft(line, product, base, splits, launcher)[0]
    recipe = yaml.safe_load(product.file("recipe", product.recipe).read_text())
    tuned = train.tuned(line, product, base, sft, splits, pairs, launcher)[0] if recipe["preference"] else None
    return train.selected(line, product, base, sft, tuned, splits)[0]


def judged(
    line: Line, product: Product, base: BaseManifest, model: ModelManifest, champion: ModelManifest
) -> GateVerdict:
    layers = [evaluate_layer(line, product, layer, base, model, champion)[0] for layer in LAYERS]
    return decide(line, product, model, layers)[0]


def told(name: str, verdict: GateVerdict) -> str:
    lines = [f"{name}: {verdict.decision} ({verdict.reason})"]
    for each in verdict.criteria:
        interval = f"[{each.ci_low:+.3f}, {each.ci_high:+.3f}]"
        lines.append(f"  {each.name:<30} {each.outcome:<13} {each.candidate_mean:.3f} {each.effect:+.3f} {interval}")
    return "\n".join(lines)


def harmless(line: Line, product: Product, verdict: GateVerdict, draws: int) -> Counter[str]:
    """Decisions on re-runs that are no better and no worse than the champion."""
    policy = load_policy(product.file("gate_policy", product.gate_policy)).model_copy(update={"resamples": 1000})
    results = {name: line.store.get_manifest(digest, EvalResult) for name, digest in verdict.results.items()}
    suites = {name.split("/")[0] for name in results}
    chance, decisions = random.Random(7), Counter[str]()
    for _ in range(draws):
        drawn = dict(results)
        for suite in sorted(suites):
            pair = (results[f"{suite}/candidate"], results[f"{suite}/champion"])
            swapped = {cluster: chance.random() < 0.5 for cluster in sorted({item.cluster for item in pair[0].items})}
            for side, subject in enumerate(("candidate", "champion")):
                mixed = tuple(
                    items[side != swapped[items[0].cluster]] for items in zip(pair[0].items, pair[1].items, strict=True)
                )
                drawn[f"{suite}/{subject}"] = pair[side].model_copy(update={"items": mixed})
        decisions[evaluate_policy(policy, drawn)[1]] += 1
    return decisions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="copy of a demo's home; it is written to")
    parser.add_argument("--candidate", required=True, help="digest of the demo's model in it")
    parser.add_argument("--only", action="append", choices=PLANTS, help="this plant; may be repeated")
    parser.add_argument("--out", type=Path, default=Path(".assay-bench/planted"))
    asked = parser.parse_args()
    line = Line(Settings(home=asked.home))
    demo = line.product("billing-assistant")
    champion = line.store.get_manifest(asked.candidate, ModelManifest)
    base = line.store.get_manifest(champion.base, BaseManifest)
    try:
        for name in asked.only or PLANTS:
            product = product_of(name, demo, asked.out / name)
            verdict = judged(line, product, base, trained(line, product, base), champion)
            print(told(name, verdict), flush=True)
            if name == "reseeded":
                found = harmless(line, product, verdict, DRAWS)
                held = wilson([Score(str(n), str(n), float(n < found["hold"])) for n in range(DRAWS)])
                print(f"of {DRAWS} harmless re-runs: {dict(found)}", flush=True)
                print(f"held for nothing: {held.estimate:.3f} [{held.low:.3f}, {held.high:.3f}]", flush=True)
    finally:
        line.supervisor.down()


if __name__ == "__main__":
    main()
