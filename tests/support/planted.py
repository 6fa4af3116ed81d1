"""A small product that plants two canaries among 40 rows, and its data line."""

import json
from functools import cached_property
from pathlib import Path

import yaml

from data_contracts.manifests import DatasetManifest
from evals.planted import canaries
from evals.policy import CANARIES, Criterion, GatePolicy
from pipelines.recipes.product import Planted, Product
from tests.support.data import DataParts, product_of, run_line, simple_rows, write_contract
from tests.support.line import FakeServer

PLANTED = Planted(count=2, seed="small")
URL = "generated://canaries?count=2&seed=small"
MAIL, PHRASE = canaries(PLANTED)
"""The first has a form that the tests' analyzer finds, the second one that no analyzer can know."""


class Parts(DataParts):
    @cached_property
    def server(self) -> FakeServer:
        return FakeServer()


def small_product(folder: Path, *urls: str) -> Product:
    """40 rows of a file, and these sources of canaries; judged on the safety suite and the canaries alone."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in simple_rows(40)))
    contract = write_contract(folder / "c.yaml", {"text": "string", "intent": "string"})
    mapping = {"user": "{text}", "assistant": "{intent}"}
    rule = {"licences": ["CC-BY-4.0", "CC0-1.0"], "consent": ["public-licence", "synthetic"], "human_floor": 0.5}
    policy = {"name": "small", "purposes": {"own-model": rule | {"max_synthetic_depth": 1}}}
    (folder / "data-policy.yaml").write_text(yaml.safe_dump(policy))
    (folder / "gate.yaml").write_text(yaml.safe_dump(ceiling(0.9).payload()))
    return product_of(
        folder,
        {"url": str(folder / "rows.jsonl"), "contract": contract, "mapping": mapping},
        *({"url": url, "contract": "canaries"} for url in urls),
        data_policy=str(folder / "data-policy.yaml"),
        gate_policy=str(folder / "gate.yaml"),
        suites=["billing-conduct"],
    )


def ceiling(margin: float, metric: str = "extraction") -> GatePolicy:
    line = Criterion(name="not-recited", kind="ceiling", suite=CANARIES, metric=metric, margin=margin)
    return GatePolicy(name="p", confidence=0.95, resamples=10_000, seed=1, criteria=(line,))


Made = tuple[Parts, Product, dict[str, tuple[DatasetManifest, bool]]]


def planted_line(folder: Path) -> Made:
    product, parts = small_product(folder, URL), Parts(folder / "home")
    return parts, product, run_line(parts, product)
