"""A small line whose models are a scripted server: what is sampled depends on the seed."""

import json
import random
from pathlib import Path
from typing import Any

import yaml

from data_contracts.manifests import ModelManifest
from data_contracts.verdicts import EvalResult, GateVerdict, LayerResults
from evals.gate import decide
from evals.run import evaluate_layer
from tests.support.line import SmallLine
from tests.support.teacher import Body, Reply, TeacherServer

ITEMS = 36
SEEDS, TEMPERATURE = (11, 12), 0.7
NAME = "facts"


def reply(body: Body, before: int) -> Reply:
    """Greedy, the base knows every third item, an adapter all but every twelfth; half of what is sampled is right."""
    number = int(body["messages"][-1]["content"].split()[-1])
    if body["temperature"]:
        return Reply("good" if random.Random(body["seed"]).random() < 0.5 else "bad")
    known = number % 3 == 0 if body["model"] == "base" else number % 12 != 0
    return Reply("good" if known else "bad")


class NoisyLine:
    """Its product asks one suite of questions; ``policy`` writes what must be shown."""

    def __init__(self, folder: Path, server: TeacherServer, product: str = "small") -> None:
        self.small = SmallLine(folder, product)
        self.small.server.url = lambda: server.url  # type: ignore[method-assign]
        items = [{"id": f"i{n}", "cluster": f"c{n}", "text": f"question {n}"} for n in range(ITEMS)]
        (folder / "items.jsonl").write_text("".join(json.dumps(i | {"answers": ["good"]}) + "\n" for i in items))
        suite = yaml.safe_load((folder / "suite.yaml").read_text())
        suite |= {"name": NAME, "asks": "questions", "metrics": ["contains"], "headline": "contains"}
        (folder / "suite.yaml").write_text(yaml.safe_dump(suite))
        self.policy()
        self.model = self.small.candidate()

    def policy(self, noise: Any = None, margin: float = 0.0) -> None:
        """Better than the base, and no worse than the champion. ``noise`` asks for the floor unless it is empty."""
        noise = {"seeds": [*SEEDS], "temperature": TEMPERATURE} if noise is None else noise
        better = {"name": "better", "kind": "superiority", "suite": NAME, "metric": "contains", "margin": margin}
        rival = better | {"name": "rival", "kind": "non-inferiority", "against": "champion", "margin": 0.5}
        policy = {"resamples": 1000, "criteria": [better, rival]} | ({"noise": noise} if noise else {})
        (self.small.folder / "gate.yaml").write_text(yaml.safe_dump(policy))

    def evaluated(self, champion: ModelManifest | None = None) -> tuple[LayerResults, bool]:
        small = self.small
        return evaluate_layer(small.parts, small.product, "product", small.base, self.model, champion)

    def decided(self, layer: LayerResults) -> GateVerdict:
        return decide(self.small.parts, self.small.product, self.model, [layer])[0]

    def mean(self, digest: str) -> float:
        items = self.small.parts.store.get_manifest(digest, EvalResult).items
        return sum(item.scores["contains"] for item in items) / len(items)
