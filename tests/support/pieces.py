"""What a small line is made of: a product with its suite and gate, a base without layers, made-up adapters and rows."""

import json
from pathlib import Path

import yaml

from data_contracts.contract import load_contract
from data_contracts.digests import Digest, sha256_bytes
from data_contracts.ledger import LedgerEntry, Origin
from data_contracts.manifests import BaseManifest, DatasetManifest, SourceRef
from evals.answers import call
from pipelines.recipes.product import ROOT, Product
from pipelines.stages.data.rows import Outcome, Outlet, derive, load, named, step
from pipelines.wiring import Line

NAME = "small"
"""The product, where a test does not need another name."""


def write_product(folder: Path, name: str, signatures: int) -> None:
    items = [
        {"id": f"i{n}", "cluster": f"c{n // 2}", "text": f"question {n}", "tools": ["get_invoice"], "expect": "reply"}
        for n in range(24)
    ]
    data = folder.parent / "items.jsonl"
    data.write_text("".join(json.dumps(item) + "\n" for item in items))
    suite = {
        "name": "small-suite",
        "layer": "product",
        "description": "made up",
        "unit": "one question",
        "cluster": "pair of questions",
        "direction": "higher-is-better",
        "licence": "CC0-1.0",
        "origin": "hand-written",
        "data": str(data),
        "metrics": ["exact"],
        "headline": "exact",
    }
    better = {"name": "better", "kind": "superiority", "suite": "small-suite", "metric": "exact", "margin": 0.2}
    policy = {
        "name": "small",
        "confidence": 0.95,
        "resamples": 1000,
        "seed": 1,
        "criteria": [better | {"against": "base"}, better | {"name": "champion", "against": "champion", "margin": 0.0}],
    }
    product = {
        "name": name,
        "tenant": "demo",
        "description": "A small product",
        "sources": [{"url": "generated://small", "contract": "small"}],
        "data_policy": "billing-assistant",
        "recipe": "billing-assistant",
        "template": "billing-assistant",
        "suites": [str(folder.parent / "suite.yaml")],
        "gate_policy": str(folder.parent / "gate.yaml"),
        "approval": {"signatures": signatures, "expires_hours": 24},
        "serving": {"canary": {"requests": 4}},
    }
    for path, value in (
        (folder.parent / "suite.yaml", suite),
        (folder.parent / "gate.yaml", policy),
        (folder / f"{name}.yaml", product),
    ):
        path.write_text(yaml.safe_dump(value))


def make_base(parts: Line, folder: Path) -> BaseManifest:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(64))
    base = BaseManifest(
        name="nothing", source="folder", licence="CC0-1.0", tree=parts.store.put_tree(folder), parameters=0
    )
    parts.store.put_manifest(base)
    return base


def write_adapter(folder: Path, base: Digest, seed: int) -> None:
    import numpy
    from safetensors.numpy import save_file

    folder.mkdir(exist_ok=True)
    weights = numpy.random.default_rng(seed).normal(size=(2, 4)).astype("float32")
    save_file({"base_model.model.q_proj.lora_A.weight": weights}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "r": 2}))


def make_data(parts: Line, product: Product) -> tuple[DatasetManifest, DatasetManifest]:
    """Raw rows of four people with ledger entries, and splits made from them."""
    contract = parts.store.put_manifest(
        load_contract(ROOT / "data_contracts" / "contracts" / "billing-conversations.yaml")
    )
    source = SourceRef(url="generated://small", content=sha256_bytes(b"rows"), contract=contract)
    origin = Origin(
        source=source.url,
        source_digest=source.content,
        contract=contract,
        licence="CC0-1.0",
        consent="synthetic",
        purposes=("own-model",),
        retain_until=None,
        tier="bronze",
        synthetic_depth=1,
    )
    people = [parts.keyring.subject(f"subject:person-{n % 4}") for n in range(12)]
    turns = [{"role": "user", "content": "invoice?"}, {"role": "assistant", "content": call("get_invoice", {})}]
    example = {"messages": turns, "tools": [{"name": "get_invoice", "description": "one invoice", "parameters": {}}]}
    rows = [{"kind": "sft", "text": f"row {n}", "example": example} for n in range(len(people))]
    items = named(parts, [(who, origin, row) for who, row in zip(people, rows, strict=True)])
    parts.ledger.record(LedgerEntry(row=item.name, subject=item.subject, origin=origin) for item in items)

    def read(out: Outlet) -> Outcome:
        for item in items:
            out.keep(item)
        return Outcome(sources=(source,))

    raw, _ = step(parts, product, "raw", (), {}, [], read)

    def split(out: Outlet) -> Outcome:
        old = list(load(parts, raw))
        for item in derive(parts, old, [each.row | {"split": "train"} for each in old]):
            out.keep(item)
        return Outcome()

    splits, _ = step(parts, product, "splits", (), {}, [raw], split)
    return raw, splits
