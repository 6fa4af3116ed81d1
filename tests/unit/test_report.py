"""The report tells a reviewer the verdict first, holds no text of any item, and is the same every time."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from data_contracts.digests import Digest, sha256_bytes
from data_contracts.manifests import BaseManifest, CheckpointManifest, ModelManifest
from data_contracts.verdicts import EvalResult, GateVerdict, ItemScore, LayerResults
from evals.gate import decide
from evals.report import Report, render
from evals.run import NO_TEMPLATE
from evals.suite import CallItem, load_suites
from pipelines.recipes.product import Product, load_product
from resources.artifact_store import FsspecArtifactStore
from tests.support.canaries import canary_results, learned_from, with_canaries

ANY = sha256_bytes(b"any")


class Parts:
    def __init__(self, home: Path) -> None:
        self.store = FsspecArtifactStore(str(home / "store"), home / "cache")


def checkpoint(parts: Parts, stage: str, base: Digest, parent: Digest | None) -> Digest:
    curve = [{"step": n, "loss": 2 / n, "validation_loss": 2.1 / n if n == 4 else None} for n in range(1, 5)]
    return parts.store.put_manifest(
        CheckpointManifest(
            product="billing-assistant",
            stage=stage,
            method="lora",
            base=base,
            template=ANY,
            recipe=ANY,
            datasets=(ANY,),
            parent=parent,
            step=4,
            weights=sha256_bytes(stage.encode()),
            curve=parts.store.put_json(curve),
            environment=ANY,
            action_key=ANY,
        )
    )


def evidence(parts: Parts, product: Product, model: ModelManifest) -> list[LayerResults]:
    found: dict[str, dict[str, Digest]] = {}
    for suite in load_suites(product):
        for subject, artifact in (("base", model.base), ("candidate", model.weights)):

            def value(metric: str, n: int, right: bool) -> float:
                return float((n % 5 != 0) if right else (n % 3 == 0))

            items = tuple(
                ItemScore(
                    item=item.id,
                    cluster=item.cluster,
                    scores={
                        metric: value(metric, n, subject == "candidate")
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
                samples=None,
                action_key=ANY,
            )
            found.setdefault(suite.layer, {})[f"{suite.name}/{subject}"] = parts.store.put_manifest(result)
    found["safety"] |= canary_results(parts.store, product, model, recited=("canary-1", "canary-3"))
    return [LayerResults(product=product.name, model=model.digest, layer=n, results=r) for n, r in found.items()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    parts, product = Parts(tmp_path_factory.mktemp("report")), with_canaries(load_product("billing-assistant"))
    base = parts.store.put_manifest(BaseManifest(name="tiny", source="folder", licence="none", tree=ANY, parameters=1))
    sft = checkpoint(parts, "sft", base, None)
    model = ModelManifest(
        product=product.name,
        base=base,
        template=product.template_digest(),
        weights=sha256_bytes(b"weights"),
        method="lora",
        rank=8,
        checkpoint=checkpoint(parts, "preference", base, sft),
        datasets=learned_from(parts.store, product),
        recipe=ANY,
        licences=("Apache-2.0",),
        synthetic_share=1.0,
        action_key=ANY,
    )
    layers = evidence(parts, product, model)
    verdict, _ = decide(parts, product, model, layers)
    return parts, product, model, verdict, layers, render(parts, product, model, verdict, layers)


def test_the_verdict_comes_first_in_both_pages(made: tuple[Any, ...]) -> None:
    _, _, _, verdict, _, report = made
    assert isinstance(verdict, GateVerdict)
    assert report.markdown.startswith(f"# {verdict.decision.upper()}: billing-assistant\n\n{verdict.reason}")
    text = re.sub(r"<style>.*?</style>|<head>.*?</head>|<[^>]+>", " ", report.html, flags=re.DOTALL)
    assert " ".join(text.split()).startswith(f"{verdict.decision.capitalize()}: billing-assistant")


def test_synthetic_data_are_labelled(made: tuple[Any, ...]) -> None:
    report = made[-1]
    assert "Synthetic data" in report.html
    assert "Synthetic data" in report.markdown


def test_every_criterion_metric_and_digest_is_shown(made: tuple[Any, ...]) -> None:
    _, product, model, verdict, _, report = made
    for page in (report.html, report.markdown):
        assert all(criterion.name in page for criterion in verdict.criteria)
        assert all(metric in page for suite in load_suites(product) for metric in suite.metrics)
        assert all(digest in page for digest in (model.weights, model.base, verdict.digest, verdict.policy))


def test_what_was_recited_of_planted_canaries_is_shown_by_kind(made: tuple[Any, ...]) -> None:
    report = made[-1]
    assert "| extraction: every canary in the training rows | 8 | 0.000 [0.000, 0.324] | 0.250 [" in report.markdown
    assert re.search(r"extraction_left: .*\| 2 \| 0\.000 \[.*\| 1\.000 \[", report.markdown)
    assert re.search(r"extraction_removed: .*\| 6 \|.*\| 0\.000 \[", report.markdown)
    assert re.search(r"guessed: .*\| 8 \|.*\| 0\.000 \[", report.markdown)
    assert "Planted canaries" in report.html


def test_no_item_text_is_in_it_but_the_names_of_changed_items_are(made: tuple[Any, ...]) -> None:
    _, product, _, _, _, report = made
    for suite in load_suites(product):
        for item in suite.items():
            assert item.text not in report.html + report.markdown
    assert "tools-002" in report.html


def test_the_page_needs_nothing_from_outside(made: tuple[Any, ...]) -> None:
    html = made[-1].html
    assert not re.search(r"<(script|link|img|iframe)\b|url\(http|@import", html)
    assert html.count("<svg") == 2


def test_it_is_the_same_every_time(made: tuple[Any, ...]) -> None:
    parts, product, model, verdict, layers, report = made
    again = render(parts, product, model, verdict, layers)
    assert again == report
    assert Report.model_validate(json.loads(report.model_dump_json())) == report
