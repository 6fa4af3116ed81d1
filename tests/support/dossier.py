"""A whole judgement of the demo product with made-up scores and answers: what a dossier is drawn from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data_contracts.digests import Digest, sha256_bytes
from data_contracts.manifests import (
    BaseManifest,
    CheckpointManifest,
    Counts,
    DatasetManifest,
    ModelManifest,
    ReleaseManifest,
    SignedHead,
)
from data_contracts.verdicts import EvalResult, GateVerdict, ItemScore, LayerResults
from evals.gate import decide
from evals.run import NO_TEMPLATE
from evals.suite import CallItem, load_suites
from pipelines.recipes.product import Product, load_product
from pipelines.recipes.recipe import load_recipe
from pipelines.settings import Settings
from pipelines.stages.release.card import render_card
from pipelines.stages.release.card_diff import diff_cards
from pipelines.wiring import Line
from tests.support.canaries import canary_results, learned_from, with_canaries

ANY = sha256_bytes(b"any")
SAID = "the secret number is 4711"
"""Stands in every answer."""

Right = Callable[[str, int], bool]
"""Whether a subject is right on the n-th item."""


@dataclass
class Judged:
    line: Line
    product: Product
    model: ModelManifest
    verdict: GateVerdict
    champion: ReleaseManifest | None


def right(subject: str, n: int) -> bool:
    """The base on a third of the items, the others on four fifths."""
    return n % 3 == 0 if subject == "base" else n % 5 != (0 if subject == "candidate" else 1)


def judged(folder: Path, with_champion: bool = False, stages: tuple[str, ...] = ("sft", "preference"),
           right: Right = right) -> Judged:  # fmt: skip
    line = Line(Settings(home=folder / "home"))
    product = with_canaries(load_product("billing-assistant"))
    data = _data(line, product)
    base = _base(line, folder / "base")
    model = _model(line, product, base, data, stages, b"candidate")
    line.store.put_manifest(model)
    subjects = {"base": model.base, "candidate": model.weights}
    champion: ReleaseManifest | None = None
    if with_champion:
        older = _model(line, product, base, data, ("sft",), b"champion")
        line.store.put_manifest(older)
        verdict = decide(
            line, product, older, _evidence(line, product, older, subjects | {"candidate": older.weights}, right)
        )[0]
        champion = _release(line, product, older, verdict)
        subjects["champion"] = older.weights
    verdict, _ = decide(line, product, model, _evidence(line, product, model, subjects, right))
    line.store.put_manifest(verdict)
    return Judged(line, product, model, verdict, champion)


def _data(line: Line, product: Product) -> tuple[Digest, ...]:
    (canaries,) = learned_from(line.store, product)
    decontaminated = DatasetManifest(
        product=product.name,
        stage="decontaminated",
        root=ANY,
        counts=Counts(rows_in=3, rows_out=2, dropped={"exact-duplicate": 1}),
        synthetic_share=1,
        facts={"origins": [], "protected_items": 272, "entities": {"PERSON": 3}},
        action_key=ANY,
    )
    upstream = line.store.put_manifest(decontaminated)
    head = line.store.get_manifest(canaries, DatasetManifest).model_copy(update={"inputs": (upstream,)})
    return (line.store.put_manifest(head),)


def _base(line: Line, folder: Path) -> Digest:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "tiny", "architectures": ["TinyForCausalLM"]}')
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_text("{}")
    tree = line.store.put_tree(folder)
    return line.store.put_manifest(
        BaseManifest(name="tiny", source="folder", licence="Apache-2.0", tree=tree, parameters=1)
    )


def _model(
    line: Line, product: Product, base: Digest, data: tuple[Digest, ...], stages: tuple[str, ...], seed: bytes
) -> ModelManifest:
    recipe = line.store.put_manifest(load_recipe(product.file("recipe", product.recipe)))
    parent: Digest | None = None
    for stage in stages:
        curve = [{"step": n, "loss": 2 / n, "validation_loss": 2.1 / n if n == 4 else None} for n in range(1, 5)]
        checkpoint = CheckpointManifest(
            product=product.name,
            stage=stage,
            method="lora",
            base=base,
            template=ANY,
            recipe=recipe,
            datasets=data,
            parent=parent,
            step=4,
            weights=line.store.put_json({"adapter_model.safetensors": sha256_bytes(stage.encode() + seed)}),
            metrics={"train_loss_last": 0.5},
            curve=line.store.put_json(curve),
            environment=line.store.put_json({"python": "3.11.7", "torch": "2.13.0+cpu", "device": "cpu"}),
            action_key=ANY,
        )
        parent = line.store.put_manifest(checkpoint)
    return ModelManifest(
        product=product.name,
        base=base,
        template=product.template_digest(),
        weights=checkpoint.weights,
        method="lora",
        rank=8,
        checkpoint=checkpoint.digest,
        datasets=data,
        recipe=recipe,
        licences=("Apache-2.0",),
        synthetic_share=1.0,
        action_key=ANY,
    )


def _evidence(
    line: Line, product: Product, model: ModelManifest, subjects: dict[str, Digest], right: Right
) -> list[LayerResults]:
    found: dict[str, dict[str, Digest]] = {}
    for suite in load_suites(product):
        for subject, artifact in subjects.items():
            items = tuple(
                ItemScore(
                    item=item.id,
                    cluster=item.cluster,
                    scores={
                        metric: float(right(subject, n))
                        for metric in suite.metrics
                        if metric != "refusal" or (isinstance(item, CallItem) and item.expect == "refuse")
                    },
                )
                for n, item in enumerate(suite.items())
            )
            result = EvalResult(
                product=product.name,
                suite=suite.name,
                suite_digest=suite.content_digest(),
                artifact=artifact,
                template=model.template if suite.lm_eval is None else NO_TEMPLATE,
                decoding=ANY,
                engine="vllm 0.0",
                items=items,
                samples=line.store.put_json({item.item: f"{SAID}, says {subject}" for item in items}),
                action_key=ANY,
            )
            found.setdefault(suite.layer, {})[f"{suite.name}/{subject}"] = line.store.put_manifest(result)
    found["safety"] |= canary_results(line.store, product, model, recited=("canary-1", "canary-3"))
    return [LayerResults(product=product.name, model=model.digest, layer=n, results=r) for n, r in found.items()]


def _release(line: Line, product: Product, model: ModelManifest, verdict: GateVerdict) -> ReleaseManifest:
    """Live from now on."""
    line.store.put_manifest(verdict)
    card = render_card(line.store, product, model, verdict, ANY, [])
    release = ReleaseManifest(
        product=product.name,
        tenant=product.tenant,
        environment=product.environment,
        model=model.digest,
        weights=model.weights,
        base=model.base,
        template=model.template,
        verdict=verdict.digest,
        card=line.store.put_bytes(card.encode()),
        card_diff=line.store.put_bytes(diff_cards("", card).encode()),
        policy=ANY,
        serving_config=ANY,
        displaced_champion=None,
        log_head=SignedHead(sequence=-1, head=ANY, signature=""),
        action_key=ANY,
    )
    line.store.put_manifest(release)
    body = {"release": release.digest, "environment": product.environment}
    line.log.append("promotion.recorded", product.name, body, actor="test")
    return release
