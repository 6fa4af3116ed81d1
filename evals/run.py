"""Evaluate a candidate on one layer's suites, beside the base and the champion, through the server that will serve it;
or any respondent on any suite.

Results are kept by artifact, and answers item by item: what was asked once is not asked again.
"""

import logging
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import JsonValue

from data_contracts.actions import action_key, code_version, remembered
from data_contracts.digests import Digest, sha256_bytes, sha256_json
from data_contracts.errors import BadInput, Refused
from data_contracts.manifests import BaseManifest, ModelManifest
from data_contracts.verdicts import EvalResult, ItemScore, Judged, LayerResults, Reruns
from evals import chat, extraction, judging, kept, lm_harness
from evals.calibration import Sitting
from evals.decoding import Decoding, as_served, fair_rival, template_text
from evals.kept import Progress, Respondent
from evals.policy import NoiseRuns, load_policy
from evals.protocols import EvalParts, Keeping
from evals.scorers import classifiers, score
from evals.suite import CallItem, ChatItem, Layer, Suite, load_suites
from pipelines.recipes.product import Product

log = logging.getLogger(__name__)
SUBJECTS = ("base", "champion", "candidate")
NO_TEMPLATE: Digest = sha256_bytes(b"")
"""The template of results that were asked for as bare text."""
_CODE = (
    "data_contracts.records",
    "evals.answers",
    "evals.calibration",
    "evals.call_text",
    "evals.constraints",
    "evals.decoding",
    "evals.grounding",
    "evals.jailbreaks",
    "evals.judge",
    "evals.judging",
    "evals.kept",
    "evals.leaks",
    "evals.lm_harness",
    "evals.numbers",
    "evals.passages",
    "evals.question",
    "evals.question_scorers",
    "evals.ragas_metrics",
    "evals.refusals",
    "evals.run",
    "evals.scorers",
    "evals.suite",
    "evals.tool_calls",
)
ASKING = ("evals.chat",)
"""The code that decides what a server's answer is taken to be."""


class Subject(NamedTuple):
    """Who answers: the base (``weights`` is None) or an adapter on it, under a chat template and a way of asking."""

    name: str
    artifact: Digest
    weights: Digest | None
    template: Digest
    decoding: Decoding


class Way(NamedTuple):
    """How chat questions are put. ``limit``: only so many items, the first of the suite; ``fresh``: ask again what was
    answered before."""

    template: str
    decoding: Decoding
    limit: int | None = None
    fresh: bool = False


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

    Where the gate policy asks for a noise floor, what candidates are compared with is asked again with its seeds.

    Raises `Refused` when a model is not of this base, `BadInput` when the product names no suite of the layer.
    """
    if not is_asked(product, layer):
        raise BadInput(f"product {product.name} names no suite of layer {layer}")
    suites = [suite for suite in load_suites(product) if suite.step == layer]
    policy = load_policy(product.file("gate_policy", product.gate_policy))
    results: dict[str, Digest] = {}
    reruns: Reruns = {}
    all_hits = True
    for suite in suites:
        if said := judging.left_out(parts, suite):
            log.warning(said)
        for subject in subjects(product, base, model, champion):
            result, hit = _evaluate(parts, product, base, suite, subject)
            results[f"{suite.name}/{subject.name}"] = result.digest
            all_hits = all_hits and hit
            if policy.noise and (suite.name, subject.name) in policy.baselines:
                again = [_evaluate(parts, product, base, suite, each) for each in _resampled(subject, policy.noise)]
                reruns[f"{suite.name}/{subject.name}"] = tuple(result.digest for result, _ in again)
                all_hits = all_hits and all(hit for _, hit in again)
    if layer == extraction.LAYER and product.planted():
        measured, hit = extraction.measure(parts, product, base, model)
        results |= measured
        all_hits = all_hits and hit
    manifest = LayerResults(product=product.name, model=model.digest, layer=layer, results=results, reruns=reruns)
    parts.store.put_manifest(manifest)
    return manifest, all_hits


def is_asked(product: Product, layer: Layer) -> bool:
    """Whether there is anything to ask in this layer."""
    planted = layer == extraction.LAYER and product.planted() is not None
    return planted or any(suite.step == layer for suite in load_suites(product))


def subjects(
    product: Product, base: BaseManifest, model: ModelManifest, champion: ModelManifest | None
) -> list[Subject]:
    """Who is compared. Raises `Refused` when a model is not of this base."""
    found = [Subject("base", base.digest, None, model.template, fair_rival(product))]
    for name, tuned in (("champion", champion), ("candidate", model)):
        if tuned is None or (name == "champion" and tuned.digest == model.digest):
            continue
        if tuned.base != base.digest:
            raise Refused(f"the {name} {tuned.digest} was made for base {tuned.base}, not for {base.digest}")
        found.append(Subject(name, tuned.weights, tuned.weights, tuned.template, as_served(product)))
    return found


def _resampled(subject: Subject, noise: NoiseRuns) -> list[Subject]:
    """Of what lm-eval scores by likelihood no seed changes anything, and nothing is asked twice."""
    return [subject._replace(decoding=subject.decoding.sampled(noise.temperature, seed)) for seed in noise.seeds]


def evaluate(
    parts: Keeping, suite: Suite, who: Respondent, way: Way, progress: Progress, product: str = ""
) -> tuple[EvalResult, bool]:
    """One respondent's result on one suite, and whether it was remembered whole. ``product`` is empty for what is asked
    outside of one.

    Raises `Unavailable` when an item gets no answer: there is no result then, but what was answered is kept. Items on
    which a judge failed are counted; they are asked again whenever the result is asked for.
    """
    probe = suite.lm_eval is not None
    if suite.free:
        way = way._replace(decoding=way.decoding.freed())
    template = NO_TEMPLATE if probe else sha256_bytes(way.template.encode())
    decoding = sha256_json(suite.lm_eval) if probe else parts.store.put_manifest(way.decoding)
    judges = judging.sittings(parts, suite)
    config = {
        "product": product,
        "lock": who.lock,
        "limit": way.limit,
        "detectors": classifiers(suite.metrics, parts),
        "judges": {metric: sitting.judged(failed=0).payload() for metric, sitting in judges.items()},
    }
    key = action_key(
        "evaluate",
        code_version(*_CODE),
        config,
        [suite.content_digest(), who.artifact, who.base, template, decoding],
    )

    def work() -> EvalResult:
        asked = (parts, suite, who, way, progress)
        found = _by_lm_eval(*asked) if probe else _by_answer(*asked, judges)
        return EvalResult(
            product=product,
            suite=suite.name,
            suite_digest=suite.content_digest(),
            artifact=who.artifact,
            template=template,
            decoding=decoding,
            engine=found.engine,
            items=found.items,
            samples=parts.store.put_json(found.texts),
            judged=found.judged,
            confidence=found.confidence,
            action_key=key,
        )

    if way.fresh:
        result = work()
        parts.store.put_action(key, parts.store.put_manifest(result))
        return result, False
    return remembered(parts.store, key, EvalResult, work, _is_whole)


def _is_whole(result: EvalResult) -> bool:
    return not any(judged.failed for judged in result.judged.values())


def _evaluate(
    parts: EvalParts, product: Product, base: BaseManifest, suite: Suite, subject: Subject
) -> tuple[EvalResult, bool]:
    who = respondent(parts, base, subject)
    way = Way(template_text(parts.store, product, subject.template), subject.decoding)
    return evaluate(parts, suite, who, way, _progress(suite, subject), product.name)


def respondent(parts: EvalParts, base: BaseManifest, subject: Subject) -> Respondent:
    """The subject behind our own server, which starts only when something has to be asked."""
    lock: JsonValue = {"server": chat.server_lock(), "code": code_version(*ASKING)}
    return Respondent(subject.artifact, base.digest, lock, lambda: served(parts, base, subject))


def served(parts: EvalParts, base: BaseManifest, subject: Subject) -> chat.Endpoint:
    parts.server.ensure_running(base)
    name = parts.server.base_name() if subject.weights is None else parts.server.ensure_loaded(subject.weights)
    return chat.Endpoint(parts.server.url(), name, lambda: parts.store.tree(base.tree), logprobs=True)


class _Answered(NamedTuple):
    """Scores; what the store keeps as the result's samples and nothing else does; the engine; who judged what; how sure
    the model was."""

    items: tuple[ItemScore, ...]
    texts: dict[str, JsonValue]
    engine: str
    judged: dict[str, Judged]
    confidence: dict[str, float]


def _by_answer(
    parts: Keeping, suite: Suite, who: Respondent, way: Way, progress: Progress, judges: Mapping[str, Sitting]
) -> _Answered:
    """Ask for answers, score them, and let judges score them."""
    items = [item for item in suite.items() if isinstance(item, ChatItem)][: way.limit]
    # Equal tool lists follow each other: one cached prefix.
    neighbours = sorted(items, key=lambda item: item.tools if isinstance(item, CallItem) else ())
    questions = {item.id: way.decoding.question(way.template, item) for item in neighbours}
    texts, engine, confidence = kept.ask(parts.answers, who, questions, progress, way.fresh)
    plain = tuple(metric for metric in suite.metrics if metric not in suite.judged)
    scores = {item.id: score(item, texts[item.id], plain, parts) for item in items}
    said = judging.judge_answers(parts, judges, items, texts, who.artifact, progress, way.fresh)
    scored = tuple(
        ItemScore(item=item.id, cluster=item.cluster, scores=scores[item.id] | said.scores[item.id]) for item in items
    )
    return _Answered(scored, dict(texts), engine, said.judged, confidence)


def _by_lm_eval(parts: Keeping, suite: Suite, who: Respondent, way: Way, progress: Progress) -> _Answered:
    """Let lm-eval compare the choices of every item by likelihood, or go on with its text."""
    items = suite.items()[: way.limit]
    probed = lm_harness.probe(suite, parts.answers, who, progress, way.limit, way.fresh)
    if probed.scores.keys() != {item.id for item in items}:
        raise Refused(f"lm-eval scored {len(probed.scores)} items of suite {suite.name}, which has {len(items)}")
    scored = tuple(ItemScore(item=item.id, cluster=item.cluster, scores=probed.scores[item.id]) for item in items)
    return _Answered(scored, probed.answers, probed.engine, {}, {})


def _progress(suite: Suite, subject: Subject) -> Progress:
    def say(done: int, total: int) -> None:
        if done % 16 == 0 or done == total:
            log.info("%s / %s: %s of %s", suite.name, subject.name, done, total)

    return say
