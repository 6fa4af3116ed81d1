"""Evaluate a candidate on one layer's suites, beside the base and the champion, through the server that will serve it.

Results are kept by artifact: the base and the champion are asked once and remembered.
"""

import logging
from collections.abc import Callable
from typing import NamedTuple

from data_contracts.actions import action_key, code_version, remembered
from data_contracts.digests import Digest, sha256_bytes, sha256_json
from data_contracts.errors import BadInput, Refused
from data_contracts.manifests import BaseManifest, ModelManifest
from data_contracts.verdicts import EvalResult, ItemScore, LayerResults
from evals import chat, extraction, lm_harness
from evals.decoding import Decoding, as_served, fair_rival, template_text
from evals.protocols import EvalParts
from evals.scorers import score
from evals.suite import CallItem, Layer, Suite, load_suites, read_items
from pipelines.recipes.product import Product

log = logging.getLogger(__name__)
SUBJECTS = ("base", "champion", "candidate")
NO_TEMPLATE: Digest = sha256_bytes(b"")
"""The template of results that were asked for as bare text."""
_CODE = (
    "data_contracts.records",
    "evals.answers",
    "evals.chat",
    "evals.decoding",
    "evals.lm_harness",
    "evals.ragas_metrics",
    "evals.run",
    "evals.scorers",
    "evals.suite",
)


class Subject(NamedTuple):
    """Who answers: the base (``weights`` is None) or an adapter on it, under a chat template and a way of asking."""

    name: str
    artifact: Digest
    weights: Digest | None
    template: Digest
    decoding: Decoding


def evaluate_layer(
    parts: EvalParts,
    product: Product,
    layer: Layer,
    base: BaseManifest,
    model: ModelManifest,
    champion: ModelManifest | None,
) -> tuple[LayerResults, bool]:
    """Results of base, champion (if one is live that is not the candidate itself) and candidate on every suite of the
    layer; a hit when all were remembered. Planted canaries are asked for with the safety layer, of base and candidate.

    Raises `Refused` when a model is not of this base, `BadInput` when the product names no suite of the layer.
    """
    if not is_asked(product, layer):
        raise BadInput(f"product {product.name} names no suite of layer {layer}")
    suites = [suite for suite in load_suites(product) if suite.layer == layer]
    results: dict[str, Digest] = {}
    all_hits = True
    for suite in suites:
        for subject in _subjects(product, base, model, champion):
            result, hit = _evaluate(parts, product, base, suite, subject)
            results[f"{suite.name}/{subject.name}"] = result.digest
            all_hits = all_hits and hit
    if layer == extraction.LAYER and product.planted():
        measured, hit = extraction.measure(parts, product, base, model)
        results |= measured
        all_hits = all_hits and hit
    manifest = LayerResults(product=product.name, model=model.digest, layer=layer, results=results)
    parts.store.put_manifest(manifest)
    return manifest, all_hits


def is_asked(product: Product, layer: Layer) -> bool:
    """Whether there is anything to ask in this layer."""
    planted = layer == extraction.LAYER and product.planted() is not None
    return planted or any(suite.layer == layer for suite in load_suites(product))


def _subjects(
    product: Product, base: BaseManifest, model: ModelManifest, champion: ModelManifest | None
) -> list[Subject]:
    subjects = [Subject("base", base.digest, None, model.template, fair_rival(product))]
    for name, tuned in (("champion", champion), ("candidate", model)):
        if tuned is None or (name == "champion" and tuned.digest == model.digest):
            continue
        if tuned.base != base.digest:
            raise Refused(f"the {name} {tuned.digest} was made for base {tuned.base}, not for {base.digest}")
        subjects.append(Subject(name, tuned.weights, tuned.weights, tuned.template, as_served(product)))
    return subjects


def _evaluate(
    parts: EvalParts, product: Product, base: BaseManifest, suite: Suite, subject: Subject
) -> tuple[EvalResult, bool]:
    probe = suite.lm_eval is not None
    template = NO_TEMPLATE if probe else subject.template
    decoding = sha256_json(suite.lm_eval) if probe else subject.decoding.digest
    key = action_key(
        "evaluate",
        code_version(*_CODE),
        {"product": product.name, "server": chat.server_lock()},
        [suite.content_digest(), subject.artifact, base.digest, template, decoding],
    )

    def work() -> EvalResult:
        parts.server.ensure_running(base)
        weights = subject.weights
        name = parts.server.base_name() if weights is None else parts.server.ensure_loaded(weights)
        ask = _by_likelihood if probe else _by_answer
        items, samples, engine = ask(parts, product, base, suite, subject, name)
        return EvalResult(
            product=product.name,
            suite=suite.name,
            suite_digest=suite.content_digest(),
            artifact=subject.artifact,
            template=template,
            decoding=decoding,
            engine=engine,
            items=items,
            samples=samples,
            action_key=key,
        )

    return remembered(parts.store, key, EvalResult, work)


_Answered = tuple[tuple[ItemScore, ...], Digest, str]


def _by_answer(
    parts: EvalParts, product: Product, base: BaseManifest, suite: Suite, subject: Subject, name: str
) -> _Answered:
    """Ask for answers and score them. The texts go to the store as one blob and nowhere else."""
    items = read_items(suite.data_path(), CallItem)
    template = template_text(parts.store, product, subject.template)
    neighbours = sorted(items, key=lambda item: item.tools)  # equal tool lists follow each other: one cached prefix
    questions = {item.id: subject.decoding.request(name, template, item) for item in neighbours}
    texts = chat.ask_all(parts.server.url(), questions, _progress(suite, subject, len(items)))
    scored = tuple(
        ItemScore(item=item.id, cluster=item.cluster, scores=score(item, texts[item.id], suite.metrics))
        for item in items
    )
    samples = parts.store.put_json({item.id: texts[item.id] for item in items})
    return scored, samples, chat.engine(parts.server.url())


def _by_likelihood(
    parts: EvalParts, product: Product, base: BaseManifest, suite: Suite, subject: Subject, name: str
) -> _Answered:
    """Let lm-eval compare the choices of every item by likelihood."""
    items = suite.items()
    say = _progress(suite, subject, len(items))
    say(0)
    probed = lm_harness.probe(suite, parts.server.url(), name, parts.store.tree(base.tree))
    if probed.scores.keys() != {item.id for item in items}:
        raise Refused(f"lm-eval scored {len(probed.scores)} items of suite {suite.name}, which has {len(items)}")
    say(len(items))
    scored = tuple(ItemScore(item=item.id, cluster=item.cluster, scores=probed.scores[item.id]) for item in items)
    engine = f"{lm_harness.engine()}, {chat.engine(parts.server.url())}"
    return scored, parts.store.put_json(probed.likelihoods), engine


def _progress(suite: Suite, subject: Subject, total: int) -> Callable[[int], None]:
    def say(done: int) -> None:
        if done % 16 == 0 or done == total:
            log.info("%s / %s: %s of %s", suite.name, subject.name, done, total)

    return say
