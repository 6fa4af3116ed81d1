"""The gate: a policy and stored results give a verdict. What is missing, unpaired or not a number refuses; it never
passes. The verdict is a pure function of the two, so that anyone can compute it again."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from data_contracts.actions import action_key, code_version, remembered
from data_contracts.digests import Digest
from data_contracts.errors import Refused
from data_contracts.manifests import ModelManifest
from data_contracts.verdicts import CriterionResult, Decision, EvalResult, GateVerdict, LayerResults
from evals import as_served, criteria, stats
from evals.extraction import LAYER, Paper, canary_paper
from evals.judging import JUDGES, SET_JUDGE
from evals.noise import noise_floor, stored_reruns
from evals.policy import CANARIES, Criterion, GatePolicy, load_policy
from evals.protocols import EvalParts, Scored
from evals.run import NO_TEMPLATE
from evals.speedtest import speed_of
from evals.suite import load_suites
from evals.trust import check_judges, untrusted
from pipelines.recipes.product import Product

_CODE = ("evals.criteria", "evals.gate", "evals.noise", "evals.policy", "evals.stats", "evals.trust")


def decide(
    parts: EvalParts, product: Product, model: ModelManifest, layers: Sequence[LayerResults]
) -> tuple[GateVerdict, bool]:
    """The verdict on a candidate, from the results that the layers name, read again from the store.

    Raises `Refused` when a suite, a subject or an item of the product is not among them, when one belongs to another
    model or another edition of a suite, or when the policy asks for a noise floor and a re-run is missing.
    """
    policy = load_policy(product.file("gate_policy", product.gate_policy))
    parts.store.put_manifest(policy)
    named: dict[str, Digest] = {}
    again: dict[str, tuple[Digest, ...]] = {}
    for layer in layers:
        if layer.model != model.digest or layer.product != product.name:
            raise Refused(f"layer {layer.layer} holds results of model {layer.model}, not of {model.digest}")
        named.update(layer.results)
        again.update(layer.reruns)
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
    if asking := speed_of(product):
        asking.check_policy(policy)
        paper = Paper(asking.content_digest(), asking.items())
        _check_results(asking.test.name, as_served.LAYER, paper, model.template, product, model, results)
    reruns = stored_reruns(parts.store, policy, results, again)
    again = {name: again[name] for run in reruns for name in run}
    config = {"results": dict(named), "reruns": {name: list(digests) for name, digests in again.items()}}
    key = action_key("decide", code_version(*_CODE), config, [model.digest, policy.digest], policy.seed)

    def work() -> GateVerdict:
        found, decision, reason = evaluate_policy(policy, results, reruns)
        return GateVerdict(
            product=product.name,
            model=model.digest,
            policy=policy.digest,
            results=named,
            reruns=again,
            criteria=found,
            decision=decision,
            reason=reason,
            action_key=key,
        )

    return remembered(parts.store, key, GateVerdict, work)


def evaluate_policy(
    policy: GatePolicy, results: Mapping[str, Scored], reruns: Sequence[Mapping[str, Scored]] = ()
) -> tuple[tuple[CriterionResult, ...], Decision, str]:
    """Criteria, decision and reason. ``results`` maps ``suite/subject`` to a result, as in a verdict; so does each of
    ``reruns``, of the baselines with another seed, from which noise floors come (see `evals.noise`).

    Any failed criterion holds the candidate back; otherwise any inconclusive one makes the verdict inconclusive.
    Raises `Refused` when the results do not let a criterion be computed, or where the policy asks for re-runs that are
    missing.
    """
    if policy.noise and len(reruns) < len(policy.noise.seeds):
        raise Refused(
            f"policy {policy.name} asks for {len(policy.noise.seeds)} re-runs of the baseline, and {len(reruns)} are "
            f"given: ask it again at temperature {policy.noise.temperature:g} with each of the seeds "
            f"{', '.join(map(str, policy.noise.seeds))} (`assay eval`), and name the scores (--rerun)"
        )
    champions = {result.artifact for name, result in results.items() if name.endswith("/champion")}
    if len(champions) > 1:
        raise Refused("the results are of more than one champion")
    asked = [c for c in policy.criteria if c.against != "champion" or champions]
    found = criteria.settled([_measured(criterion, policy, results, reruns) for criterion in asked], policy)
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
    criterion: Criterion, policy: GatePolicy, results: Mapping[str, Scored], reruns: Sequence[Mapping[str, Scored]]
) -> criteria.Measured:
    candidate = scores_of(results, criterion.suite, "candidate", criterion.metric)
    try:
        if criterion.against is None:
            found = criteria.bound(criterion, policy, candidate)
        else:
            baseline = scores_of(results, criterion.suite, criterion.against, criterion.metric)
            again = [scores_of(rerun, criterion.suite, criterion.against, criterion.metric) for rerun in reruns]
            floors = [floor for floor in (criterion.noise, noise_floor(baseline, again)) if floor is not None]
            found = criteria.compare(criterion, policy, baseline, candidate, max(floors, default=None))
    except stats.StatsError as error:
        raise Refused(f"criterion {criterion.name} cannot be computed: {error}") from error
    doubts = (untrusted(each, criterion.suite, found.baseline, criterion.metric) for each in (results, *reruns))
    reason = next(filter(None, doubts), "")
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
