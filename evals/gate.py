"""The gate: a policy and stored results give a verdict. What is missing, unpaired or not a number refuses; it never
passes. The verdict is a pure function of the two, so that anyone can compute it again."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from data_contracts.actions import action_key, code_version, remembered
from data_contracts.digests import Digest
from data_contracts.errors import Refused
from data_contracts.manifests import ModelManifest
from data_contracts.verdicts import CriterionResult, Decision, EvalResult, GateVerdict, LayerResults
from evals import criteria, stats
from evals.extraction import LAYER, Paper, canary_paper
from evals.judging import JUDGES, SET_JUDGE
from evals.policy import CANARIES, Criterion, GatePolicy, load_policy
from evals.protocols import EvalParts, Scored
from evals.run import NO_TEMPLATE
from evals.suite import load_suites
from evals.trust import check_judges, untrusted
from pipelines.recipes.product import Product

_CODE = ("evals.criteria", "evals.gate", "evals.policy", "evals.stats", "evals.trust")


def decide(
    parts: EvalParts, product: Product, model: ModelManifest, layers: Sequence[LayerResults]
) -> tuple[GateVerdict, bool]:
    """The verdict on a candidate, from the results that the layers name, read again from the store.

    Raises `Refused` when a suite, a subject or an item of the product is not among them, or when one belongs to another
    model or another edition of a suite.
    """
    policy = load_policy(product.file("gate_policy", product.gate_policy))
    parts.store.put_manifest(policy)
    named: dict[str, Digest] = {}
    for layer in layers:
        if layer.model != model.digest or layer.product != product.name:
            raise Refused(f"layer {layer.layer} holds results of model {layer.model}, not of {model.digest}")
        named.update(layer.results)
    results = {name: parts.store.get_manifest(digest, EvalResult) for name, digest in named.items()}
    check_judges(parts.store, results)
    for suite in load_suites(product):
        suite.check_policy(policy)
        template = model.template if suite.lm_eval is None else NO_TEMPLATE
        paper = Paper(suite.content_digest(), frozenset(item.id for item in suite.items()))
        _check_results(suite.name, suite.step, paper, template, product, model, results)
    if product.planted():
        paper = canary_paper(parts.store, product, model)
        _check_results(CANARIES, LAYER, paper, model.template, product, model, results)
    key = action_key("decide", code_version(*_CODE), dict(named), [model.digest, policy.digest], policy.seed)

    def work() -> GateVerdict:
        found, decision, reason = evaluate_policy(policy, results)
        return GateVerdict(
            product=product.name,
            model=model.digest,
            policy=policy.digest,
            results=named,
            criteria=found,
            decision=decision,
            reason=reason,
            action_key=key,
        )

    return remembered(parts.store, key, GateVerdict, work)


def evaluate_policy(
    policy: GatePolicy, results: Mapping[str, Scored], noise: Mapping[str, float] = MappingProxyType({})
) -> tuple[tuple[CriterionResult, ...], Decision, str]:
    """Criteria, decision and reason. ``results`` maps ``suite/subject`` to a result, as in a verdict; ``noise`` maps
    criteria to noise floors that were measured (see `evals.noise`).

    Any failed criterion holds the candidate back; otherwise any inconclusive one makes the verdict inconclusive.
    Raises `Refused` when the results do not let a criterion be computed.
    """
    champions = {result.artifact for name, result in results.items() if name.endswith("/champion")}
    if len(champions) > 1:
        raise Refused("the results are of more than one champion")
    asked = [c for c in policy.criteria if c.against != "champion" or champions]
    found = criteria.settled([_measured(criterion, policy, results, noise) for criterion in asked], policy)
    outcomes = {outcome: [c.name for c in found if c.outcome == outcome] for outcome in ("fail", "inconclusive")}
    if outcomes["fail"]:
        return found, "hold", "failed: " + ", ".join(outcomes["fail"])
    if outcomes["inconclusive"]:
        return found, "inconclusive", "cannot tell: " + ", ".join(outcomes["inconclusive"])
    rival = "" if champions else "; there is no other champion to compare with"
    return found, "promote", f"all {len(found)} criteria pass{rival}"


def scores_of(results: Mapping[str, Scored], suite: str, subject: str, metric: str) -> list[stats.Score]:
    """The metric's scores of one subject, for the items that it applies to. Raises `Refused` when there are none."""
    result = results.get(f"{suite}/{subject}")
    if result is None:
        raise Refused(f"no results of {subject} on suite {suite}")
    scores = [stats.Score(i.item, i.cluster, i.scores[metric]) for i in result.items if metric in i.scores]
    if not scores:
        remedy = f", as no judge model was asked: {SET_JUDGE}, and evaluate again" if metric in JUDGES else ""
        raise Refused(f"suite {suite} has no metric {metric} for {subject}{remedy}")
    return scores


def _measured(
    criterion: Criterion, policy: GatePolicy, results: Mapping[str, Scored], noise: Mapping[str, float]
) -> criteria.Measured:
    candidate = scores_of(results, criterion.suite, "candidate", criterion.metric)
    try:
        if criterion.against is None:
            found = criteria.bound(criterion, policy, candidate)
        else:
            baseline = scores_of(results, criterion.suite, criterion.against, criterion.metric)
            floors = [floor for floor in (criterion.noise, noise.get(criterion.name)) if floor is not None]
            found = criteria.compare(criterion, policy, baseline, candidate, max(floors, default=None))
    except stats.StatsError as error:
        raise Refused(f"criterion {criterion.name} cannot be computed: {error}") from error
    reason = untrusted(results, criterion.suite, found.baseline, criterion.metric)
    return replace(found, silent=True, reason=reason) if reason else found


def _check_results(
    suite: str,
    layer: str,
    paper: Paper,
    template: Digest,
    product: Product,
    model: ModelManifest,
    results: Mapping[str, EvalResult],
) -> None:
    """Base and candidate (and the champion, if it is anywhere but on canaries) answered this edition of the suite,
    every item of it."""
    subjects = ["base", "candidate"]
    if suite != CANARIES and any(name.endswith("/champion") for name in results):
        subjects.append("champion")
    artifacts = {"base": model.base, "candidate": model.weights}
    for subject in subjects:
        result = results.get(f"{suite}/{subject}")
        if result is None:
            raise Refused(f"no results of {subject} on suite {suite}: evaluate layer {layer}")
        what = f"the results of {subject} on suite {suite}"
        if (result.product, result.suite, result.suite_digest) != (product.name, suite, paper.digest):
            raise Refused(f"{what} are of another product or another edition of the suite: evaluate again")
        if result.artifact != artifacts.get(subject, result.artifact):
            raise Refused(f"{what} are of {result.artifact}, not of {artifacts[subject]}")
        if subject != "champion" and result.template != template:
            raise Refused(f"{what} were asked for under another chat template")
        if {score.item for score in result.items} != paper.items or len(result.items) != len(paper.items):
            raise Refused(f"{what} do not cover the suite: {len(result.items)} of {len(paper.items)} items")
