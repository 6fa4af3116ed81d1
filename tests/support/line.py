"""A whole small line without training: real stores, real keys, real gate; a made-up adapter and made-up scores."""

import copy
import json
import shutil
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import yaml

from data_contracts.chain import APPROVAL_NAMESPACE, AuditRecord
from data_contracts.digests import Digest, sha256_bytes, sha256_file
from data_contracts.ledger import LedgerEntry
from data_contracts.manifests import (
    BaseManifest,
    CheckpointManifest,
    DatasetManifest,
    ModelManifest,
    ReleaseManifest,
    SourceRef,
)
from data_contracts.verdicts import Approval, EvalResult, GateVerdict, ItemScore, LayerResults
from evals.gate import decide
from evals.report import Report
from evals.suite import CallItem, load_suites
from pipelines.recipes.product import ROOT, Product
from pipelines.recipes.recipe import load_recipe
from pipelines.stages.data.rows import Outcome, derive, load, named, step
from pipelines.stages.release import approval
from pipelines.stages.release.canary import Answered
from pipelines.stages.release.candidate import register
from pipelines.stages.release.promotion import promote
from pipelines.wiring import Line, Settings
from resources.ssh_signatures import create_key, public_key, sign, signer_line

NAME = "small"
REPORT = Report(html="<p>report</p>", markdown="report")
ANSWER = json.dumps({"reply": "hello"})


class FakeServer:
    """A model server that remembers what it was asked to load."""

    def __init__(self) -> None:
        self.running: BaseManifest | None = None
        self.names: list[str] = []

    def ensure_running(self, base: BaseManifest) -> None:
        self.running = base

    def ensure_loaded(self, weights: Digest) -> str:
        if weights not in self.names:
            self.names.append(weights)
        return weights

    def base_name(self) -> str:
        return "base"

    def base(self) -> BaseManifest | None:
        return self.running

    def loaded(self) -> list[str]:
        return list(self.names)

    def url(self) -> str:
        return "http://127.0.0.1:9/v1"


class FakeRegistry:
    def __init__(self) -> None:
        self.versions: dict[tuple[str, Digest], set[str]] = {}
        self.aliases: dict[tuple[str, str], Digest] = {}

    def register(self, product: str, release: Digest, files: Mapping[str, Path], tags: Mapping[str, str]) -> str:
        assert all(path.exists() for path in files.values())
        self.versions.setdefault((product, release), set(files))
        return str(list(self.versions).index((product, release)) + 1)

    def alias(self, product: str, name: str) -> Digest | None:
        return self.aliases.get((product, name))

    def set_alias(self, product: str, name: str, release: Digest | None) -> None:
        if release is None:
            self.aliases.pop((product, name), None)
        else:
            assert (product, release) in self.versions
            self.aliases[product, name] = release


class SmallLine:
    """An installation in ``folder`` with one product, its base and data; candidates are made by `candidate`."""

    def __init__(self, folder: Path, signatures: int = 1, reviewers: Iterable[str] = ("alice", "bob")) -> None:
        self.folder = folder
        self.trust_root = folder / "trust" / "allowed_signers"
        products = folder / "products"
        products.mkdir(parents=True)
        _write_product(products, signatures)
        self.server, self.registry = FakeServer(), FakeRegistry()
        self._open()
        self.product: Product = self.parts.product(NAME)
        lines = [self.parts.log.signer_line()]
        for name in reviewers:
            create_key(self.key(name), name)
            lines.append(signer_line(name, APPROVAL_NAMESPACE, public_key(self.key(name))))
        self.trust_root.parent.mkdir()
        self.trust_root.write_text("\n".join(lines) + "\n")
        self.base = _make_base(self.parts, folder / "base")
        self.raw, self.splits = _make_data(self.parts, self.product)

    def copied(self, folder: Path) -> "SmallLine":
        """The same line in another folder, to do harm to."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        other = copy.copy(self)
        other.folder, other.trust_root = folder, folder / "trust" / "allowed_signers"
        other.server, other.registry = copy.deepcopy(self.server), copy.deepcopy(self.registry)
        other._open()
        return other

    def _open(self) -> None:
        settings = Settings(home=self.folder / "home", trust_root=self.trust_root, products=self.folder / "products")
        self.parts = Line(settings)
        self.parts.__dict__.update(server=self.server, registry=self.registry)

    def key(self, name: str) -> Path:
        return self.folder / "reviewers" / name

    def candidate(self, seed: int = 0, champion: ModelManifest | None = None, base: Digest = "") -> ModelManifest:
        """A model whose adapter bytes are made from ``seed``; ``base`` is what its adapter says it was trained on."""
        store = self.parts.store
        adapter = self.folder / f"adapter-{seed}"
        _write_adapter(adapter, base or self.base.digest, seed)
        recipe = load_recipe(self.product.file("recipe", self.product.recipe))
        template = store.put_bytes(self.product.file("template", self.product.template).read_bytes())
        checkpoint = CheckpointManifest(
            product=NAME,
            stage="sft",
            method="lora",
            base=self.base.digest,
            template=template,
            recipe=store.put_manifest(recipe),
            datasets=(self.splits.digest,),
            step=3,
            weights=store.put_tree(adapter),
            metrics={"loss": 0.25},
            curve=store.put_json([]),
            environment=store.put_json({"python": "3.11"}),
            action_key=sha256_bytes(b"checkpoint"),
        )
        body = {"checkpoint": store.put_manifest(checkpoint)}
        self.parts.log.append("checkpoint.recorded", NAME, body, actor="test")
        model = ModelManifest(
            product=NAME,
            base=self.base.digest,
            template=template,
            weights=checkpoint.weights,
            method="lora",
            rank=2,
            checkpoint=checkpoint.digest,
            datasets=checkpoint.datasets,
            recipe=checkpoint.recipe,
            licences=("CC0-1.0",),
            synthetic_share=1.0,
            action_key=sha256_bytes(b"model"),
        )
        store.put_manifest(model)
        return model

    def verdict(self, model: ModelManifest, champion: ModelManifest | None = None, score: float = 1.0) -> GateVerdict:
        """The real gate's verdict on made-up scores: the base knows nothing, the candidate scores ``score``."""
        subjects = {"base": (model.base, 0.0), "candidate": (model.weights, score)}
        if champion is not None:
            subjects["champion"] = (champion.weights, 0.5)
        results: dict[str, Digest] = {}
        (suite,) = load_suites(self.product)
        for subject, (artifact, value) in subjects.items():
            items = [
                ItemScore(item=item.id, cluster=item.cluster, scores={"exact": value if n % 8 else 1 - value})
                for n, item in enumerate(suite.items())
            ]
            result = EvalResult(
                product=NAME,
                suite=suite.name,
                suite_digest=suite.content_digest(),
                artifact=artifact,
                template=model.template,
                decoding=sha256_bytes(b"greedy"),
                engine="none",
                items=tuple(items),
                samples=None,
                action_key=sha256_bytes(b"eval"),
            )
            results[f"{suite.name}/{subject}"] = self.parts.store.put_manifest(result)
        layer = LayerResults(product=NAME, model=model.digest, layer="product", results=results)
        return decide(self.parts, self.product, model, [layer])[0]

    def release(self, seed: int = 0, champion: ModelManifest | None = None) -> ReleaseManifest:
        model = self.candidate(seed)
        return register(self.parts, self.product, model, self.verdict(model, champion), REPORT)[0]

    def signed(
        self,
        release: ReleaseManifest,
        name: str = "alice",
        decision: Literal["approve", "reject"] = "approve",
        reason: str = "",
        hours: float = 1.0,
        namespace: str = APPROVAL_NAMESPACE,
        **changed: object,
    ) -> Approval:
        """An approval as a reviewer would sign it; ``changed`` fields are falsified before signing."""
        expires = datetime.now(UTC) + timedelta(hours=hours)
        statement = approval.statement_for(self.parts, self.product, release.digest, decision, expires)
        statement = statement.model_validate(statement.model_dump() | changed)
        signature = sign(self.key(name), namespace, approval.message(statement))
        return Approval(release=release.digest, statement=statement, principal=name, signature=signature, reason=reason)

    def approve(self, release: ReleaseManifest, name: str = "alice") -> AuditRecord:
        return approval.accept(self.parts, self.product, self.signed(release, name))

    def promote(self, release: ReleaseManifest, text: str = ANSWER) -> AuditRecord:
        return promote(self.parts, self.product, release.digest, self.ask(text))

    def live(self, seed: int = 0, champion: ModelManifest | None = None) -> ReleaseManifest:
        """A release that went all the way."""
        release = self.release(seed, champion)
        self.approve(release)
        self.promote(release)
        return release

    def model_of(self, release: ReleaseManifest) -> ModelManifest:
        return self.parts.store.get_manifest(release.model, ModelManifest)

    @staticmethod
    def ask(text: str = ANSWER, instead: Digest | None = None):
        def answer(product: Product, release: Digest, prompt: CallItem) -> Answered:
            return Answered(text, instead or release, 5.0)

        return answer


def _write_product(folder: Path, signatures: int) -> None:
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
        "criteria": [better | {"against": "base"}, better | {"name": "champion", "against": "champion"}],
    }
    product = {
        "name": NAME,
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
        (folder / f"{NAME}.yaml", product),
    ):
        path.write_text(yaml.safe_dump(value))


def _make_base(parts: Line, folder: Path) -> BaseManifest:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(64))
    base = BaseManifest(
        name="nothing", source="folder", licence="CC0-1.0", tree=parts.store.put_tree(folder), parameters=0
    )
    parts.store.put_manifest(base)
    return base


def _write_adapter(folder: Path, base: Digest, seed: int) -> None:
    import numpy
    from safetensors.numpy import save_file

    folder.mkdir(exist_ok=True)
    weights = numpy.random.default_rng(seed).normal(size=(2, 4)).astype("float32")
    save_file({"base_model.model.q_proj.lora_A.weight": weights}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "r": 2}))


def _make_data(parts: Line, product: Product) -> tuple[DatasetManifest, DatasetManifest]:
    """Raw rows of four people with ledger entries, and splits made from them."""
    pairs = [(parts.keyring.subject(f"person-{n % 4}"), {"kind": "sft", "text": f"row {n}"}) for n in range(12)]
    contract = sha256_file(ROOT / "pyproject.toml")
    source = SourceRef(url="generated://small", content=sha256_bytes(b"rows"), contract=contract)
    items = named(parts, pairs)
    parts.ledger.record(
        LedgerEntry(
            row=item.name,
            subject=item.subject,
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
        for item in items
    )
    raw, _ = step(parts, product, "raw", (), {}, [], lambda: Outcome(kept=items, sources=(source,)))

    def split() -> Outcome:
        old = load(parts, raw)
        return Outcome(kept=derive(parts, old, [each.row | {"split": "train"} for each in old]))

    splits, _ = step(parts, product, "splits", (), {}, [raw], split)
    return raw, splits
