"""The gate: a policy and stored results give a verdict. What is missing, unpaired or not a number refuses; it never
passes. The verdict is a pure function of the two, so that anyone can compute it again."""

from collections.abc import Mapping, Sequence

from data_contracts.actions import action_key, code_version, remembered
from data_contracts.digests import Digest
from data_contracts.errors import Refused
from data_contracts.manifests import ModelManifest
from data_contracts.verdicts import CriterionResult, Decision, EvalResult, GateVerdict, LayerResults, Outcome
from evals import stats
from evals.extraction import LAYER, Paper, canary_paper
from evals.policy import CANARIES, Criterion, GatePolicy, load_policy
from evals.protocols import EvalParts
from evals.run import NO_TEMPLATE
from evals.suite import load_suites
from pipelines.recipes.product import Product

_CODE = ("evals.gate", "evals.policy", "evals.stats")


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
        criteria, decision, reason = evaluate_policy(policy, results)
        return GateVerdict(
            product=product.name,
            model=model.digest,
            policy=policy.digest,
            results=named,
            criteria=criteria,
            decision=decision,
            reason=reason,
            action_key=key,
        )

    return remembered(parts.store, key, GateVerdict, work)


def evaluate_policy(
    policy: GatePolicy, results: Mapping[str, EvalResult]
) -> tuple[tuple[CriterionResult, ...], Decision, str]:
    """Criteria, decision and reason. ``results`` maps ``suite/subject`` to a result, as in a verdict.

    Any failed criterion holds the candidate back; otherwise any inconclusive one makes the verdict inconclusive.
    Raises `Refused` when the results do not let a criterion be computed.
    """
    champions = {result.artifact for name, result in results.items() if name.endswith("/champion")}
    if len(champions) > 1:
        raise Refused("the results are of more than one champion")
    asked = [c for c in policy.criteria if c.against != "champion" or champions]
    criteria = tuple(_judge(criterion, policy, results) for criterion in asked)
    outcomes = {outcome: [c.name for c in criteria if c.outcome == outcome] for outcome in ("fail", "inconclusive")}
    if outcomes["fail"]:
        return criteria, "hold", "failed: " + ", ".join(outcomes["fail"])
    if outcomes["inconclusive"]:
        return criteria, "inconclusive", "cannot tell: " + ", ".join(outcomes["inconclusive"])
    rival = "" if champions else "; there is no other champion to compare with"
    return criteria, "promote", f"all {len(criteria)} criteria pass{rival}"


def scores_of(results: Mapping[str, EvalResult], suite: str, subject: str, metric: str) -> list[stats.Score]:
    """The metric's scores of one subject, for the items that it applies to. Raises `Refused` when there are none."""
    result = results.get(f"{suite}/{subject}")
    if result is None:
        raise Refused(f"no results of {subject} on suite {suite}")
    scores = [stats.Score(i.item, i.cluster, i.scores[metric]) for i in result.items if metric in i.scores]
    if not scores:
        raise Refused(f"suite {suite} has no metric {metric} for {subject}")
    return scores


def _judge(criterion: Criterion, policy: GatePolicy, results: Mapping[str, EvalResult]) -> CriterionResult:
    candidate = scores_of(results, criterion.suite, "candidate", criterion.metric)
    try:
        if criterion.against is None:
            return _bound(criterion, policy, candidate)
        baseline = scores_of(results, criterion.suite, criterion.against, criterion.metric)
        return _comparison(criterion, policy, baseline, candidate)
    except stats.StatsError as error:
        raise Refused(f"criterion {criterion.name} cannot be computed: {error}") from error


def _bound(criterion: Criterion, policy: GatePolicy, candidate: list[stats.Score]) -> CriterionResult:
    share, margin = stats.wilson(candidate, policy.confidence), criterion.margin
    if criterion.kind == "floor":
        apart = stats.Interval(*(bound - margin for bound in share))
    else:
        apart = stats.Interval(margin - share.estimate, margin - share.high, margin - share.low)
    reason = f"candidate {_range(share)}, {criterion.kind} {margin:.2f}"
    return _line(criterion, policy, criterion.kind, margin, candidate, apart, _outcome(apart, 0.0), reason)


def _comparison(
    criterion: Criterion, policy: GatePolicy, baseline: list[stats.Score], candidate: list[stats.Score]
) -> CriterionResult:
    differences = stats.paired_differences(baseline, candidate)
    effect = stats.cluster_interval(differences, policy.confidence, policy.resamples, policy.seed)
    bound = criterion.margin if criterion.kind == "superiority" else -criterion.margin
    outcome = _outcome(effect, bound)
    reason = f"difference {_range(effect)}, must lie above {bound:+.2f}"
    if criterion.chance is not None:
        share = stats.wilson(baseline, policy.confidence)
        if share.low <= criterion.chance:
            outcome = "inconclusive"
            reason = f"{criterion.against} {_range(share)} is not clearly above chance ({criterion.chance:.2f})"
    mean = stats.mean(baseline)
    return _line(criterion, policy, str(criterion.against), mean, candidate, effect, outcome, reason)


def _line(
    criterion: Criterion,
    policy: GatePolicy,
    baseline: str,
    baseline_mean: float,
    candidate: list[stats.Score],
    effect: stats.Interval,
    outcome: Outcome,
    reason: str,
) -> CriterionResult:
    return CriterionResult(
        name=criterion.name,
        kind=criterion.kind,
        suite=criterion.suite,
        metric=criterion.metric,
        n=len(candidate),
        baseline=baseline,
        baseline_mean=baseline_mean,
        candidate_mean=stats.mean(candidate),
        effect=effect.estimate,
        ci_low=effect.low,
        ci_high=effect.high,
        margin=criterion.margin,
        confidence=policy.confidence,
        outcome=outcome,
        reason=reason,
    )


def _outcome(effect: stats.Interval, bound: float) -> Outcome:
    if effect.low > bound:
        return "pass"
    return "fail" if effect.high <= bound else "inconclusive"


def _range(interval: stats.Interval) -> str:
    return f"{interval.estimate:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


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
