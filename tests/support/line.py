"""A whole small line without training: real stores, real keys, real gate; a made-up adapter and made-up scores."""

import copy
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from data_contracts.chain import APPROVAL_NAMESPACE, ROOT_CAUSE_NAMESPACE, AuditRecord
from data_contracts.digests import Digest, hex_of, sha256_bytes
from data_contracts.manifests import (
    BaseManifest,
    CheckpointManifest,
    ModelManifest,
    ReleaseManifest,
)
from data_contracts.verdicts import Approval, EvalResult, GateVerdict, ItemScore, LayerResults
from evals.answers import words
from evals.gate import decide
from evals.report import Report
from evals.suite import CallItem, load_suites
from pipelines.recipes.product import Product
from pipelines.recipes.recipe import load_recipe
from pipelines.settings import Settings
from pipelines.stages.release import approval, rootcause
from pipelines.stages.release.canary import Answered
from pipelines.stages.release.candidate import register
from pipelines.stages.release.promotion import promote
from pipelines.wiring import Line
from resources.ssh_signatures import create_key, public_key, sign, signer_line
from tests.support.pieces import NAME, make_base, make_data, write_adapter, write_product
from tests.support.registry import FakeRegistry
from tests.support.serving import FakeMerged

REPORT = Report(html="<p>report</p>", markdown="report")
ANSWER = words("hello")


class FakeServer:
    """A model server that remembers what it was asked to load."""

    def __init__(self) -> None:
        self.running: BaseManifest | None = None
        self.names: list[str] = []
        self.machine = "made up"

    def ensure_running(self, base: BaseManifest) -> None:
        self.running = base

    def ensure_loaded(self, weights: Digest) -> str:
        if weights not in self.names:
            self.names.append(weights)
        return weights

    residents = 6

    def name_of(self, weights: Digest) -> str:
        return weights

    def slot_bytes(self) -> int:
        return 1 << 30

    def pin(self, adapters: Mapping[str, Digest | None]) -> None:
        pass

    def unload(self, weights: Digest) -> None:
        if weights in self.names:
            self.names.remove(weights)

    def base_name(self) -> str:
        return "base"

    def base(self) -> BaseManifest | None:
        return self.running

    def loaded(self) -> list[str]:
        return list(self.names)

    def url(self) -> str:
        return "http://127.0.0.1:9/v1"

    def setup(self) -> dict[str, JsonValue]:
        return {"machine": self.machine}


class SmallLine:
    """An installation in ``folder`` with one product, its base and data; candidates are made by `candidate`."""

    def __init__(self, folder: Path, name: str = NAME, signatures: int = 1) -> None:
        self.folder = folder
        self.trust_root = folder / "trust" / "allowed_signers"
        products = folder / "products"
        products.mkdir(parents=True)
        write_product(products, name, signatures)
        self.server, self.registry = FakeServer(), FakeRegistry()
        self._open()
        self.product: Product = self.parts.product(name)
        lines = [self.parts.log.signer_line()]
        for person in ("alice", "bob"):
            create_key(self.key(person), person)
            lines.append(signer_line(person, APPROVAL_NAMESPACE, public_key(self.key(person))))
        lines.append(signer_line("alice", ROOT_CAUSE_NAMESPACE, public_key(self.key("alice"))))
        self.trust_root.parent.mkdir()
        self.trust_root.write_text("\n".join(lines) + "\n")
        self.base = make_base(self.parts, folder / "base")
        self.raw, self.splits = make_data(self.parts, self.product)

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
        self.parts.__dict__.update(server=self.server, registry=self.registry, merged=FakeMerged())

    def key(self, name: str) -> Path:
        return self.folder / "reviewers" / name

    def sealed(self, weights: Digest) -> Path:
        """Where these weights of the product's tenant lie."""
        (folder,) = (self.parts.home / "store" / "sealed" / hex_of(weights) / self.product.tenant).iterdir()
        return folder

    def candidate(self, seed: int = 0, base: Digest = "", adapter: Path | None = None) -> ModelManifest:
        """A model with this adapter, or with one whose bytes are made from ``seed``; ``base`` is what that one says it
        was trained on."""
        store = self.parts.store
        if adapter is None:
            adapter = self.folder / f"adapter-{seed}"
            write_adapter(adapter, base or self.base.digest, seed)
        recipe = load_recipe(self.product.file("recipe", self.product.recipe))
        template = store.put_bytes(self.product.file("template", self.product.template).read_bytes())
        checkpoint = CheckpointManifest(
            product=self.product.name,
            stage="sft",
            method="lora",
            base=self.base.digest,
            template=template,
            recipe=store.put_manifest(recipe),
            datasets=(self.splits.digest,),
            step=3,
            weights=store.put_tree(adapter, self.product.tenant),
            metrics={"loss": 0.25},
            curve=store.put_json([]),
            environment=store.put_json({"python": "3.11"}),
            action_key=sha256_bytes(b"checkpoint"),
        )
        body = {
            "checkpoint": store.put_manifest(checkpoint),
            "stage": "sft",
            "weights": checkpoint.weights,
            "seconds": 20,
        }
        self.parts.log.append("checkpoint.recorded", self.product.name, body, actor="test")
        model = ModelManifest(
            product=self.product.name,
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

    def verdict(
        self,
        model: ModelManifest,
        champion: ModelManifest | None = None,
        score: float = 1.0,
        samples: Digest | None = None,
    ) -> GateVerdict:
        """The real gate's verdict on made-up scores."""
        return decide(self.parts, self.product, model, [self.scored(model, champion, score, samples)])[0]

    def scored(
        self,
        model: ModelManifest,
        champion: ModelManifest | None = None,
        score: float = 1.0,
        samples: Digest | None = None,
    ) -> LayerResults:
        """Made-up scores: the base knows nothing, the candidate scores ``score``."""
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
                product=self.product.name,
                suite=suite.name,
                suite_digest=suite.content_digest(),
                artifact=artifact,
                template=model.template,
                decoding=sha256_bytes(b"greedy"),
                engine="none",
                items=tuple(items),
                samples=samples,
                action_key=sha256_bytes(b"eval"),
            )
            results[f"{suite.name}/{subject}"] = self.parts.store.put_manifest(result)
        return LayerResults(product=self.product.name, model=model.digest, layer="product", results=results)

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

    def explain_rollback(self) -> AuditRecord:
        """File why it was needed, which opens the product for approvals."""
        statement = rootcause.statement_for(self.parts, self.product, "data", "prices of last year")
        signature = sign(self.key("alice"), ROOT_CAUSE_NAMESPACE, rootcause.message(statement))
        return rootcause.file(self.parts, self.product, statement, signature)

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
