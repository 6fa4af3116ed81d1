"""One criterion on its scores: an effect with its interval, the bounds it is held to, and the smallest effect that so
many items can show."""

from collections.abc import Sequence
from dataclasses import dataclass

from data_contracts.verdicts import CriterionResult, Outcome
from evals import stats
from evals.policy import Criterion, GatePolicy

POWER = 0.8
"""The minimum detectable effect is one that passes with this probability."""


@dataclass(frozen=True)
class Measured:
    """A criterion before the family is looked at. The interval of ``effect`` above ``pass_bound`` passes; at or below
    ``fail_bound`` it may fail, with the p-value ``p``. ``silent`` says why it decides nothing."""

    criterion: Criterion
    baseline: str
    baseline_mean: float
    candidate_mean: float
    n: int
    clusters: int
    effect: stats.Interval
    pass_bound: float
    fail_bound: float
    p: float
    mde: float
    noise: float | None
    reason: str
    silent: bool = False


def compare(
    criterion: Criterion,
    policy: GatePolicy,
    baseline: Sequence[stats.Score],
    candidate: Sequence[stats.Score],
    noise: float | None,
) -> Measured:
    """Superiority or non-inferiority. ``noise`` widens the zone in which nothing is decided: a gain must exceed it, and
    a loss within it holds nobody back."""
    differences = stats.paired_differences(baseline, candidate)
    found = stats.cluster_difference(differences, policy.resamples, policy.seed)
    effect = found.interval(policy.confidence)
    floor = noise or 0.0
    if criterion.kind == "superiority":
        pass_bound, fail_bound = max(criterion.margin, floor), criterion.margin
    else:
        pass_bound, fail_bound = -criterion.margin, -max(criterion.margin, floor)
    reason = f"difference {_range(effect)}, must lie above {pass_bound:+.3f}"
    if pass_bound == floor > criterion.margin:
        reason += " (the noise floor)"
    silent = False
    if criterion.chance is not None:
        share = stats.cluster_share(baseline, policy.resamples, policy.seed).interval(policy.confidence)
        if share.low <= criterion.chance:
            silent = True
            reason = f"{criterion.against} {_range(share)} is not clearly above chance ({criterion.chance:.2f})"
    return Measured(
        criterion=criterion,
        baseline=str(criterion.against),
        baseline_mean=stats.mean(baseline),
        candidate_mean=stats.mean(candidate),
        n=len(candidate),
        clusters=found.clusters,
        effect=effect,
        pass_bound=pass_bound,
        fail_bound=fail_bound,
        p=found.p_at_least(fail_bound),
        mde=found.reach(policy.confidence, POWER),
        noise=noise,
        reason=reason,
        silent=silent,
    )


def bound(criterion: Criterion, policy: GatePolicy, candidate: Sequence[stats.Score]) -> Measured:
    """A floor or a ceiling of the candidate's own mean."""
    found = stats.cluster_share(candidate, policy.resamples, policy.seed)
    share, margin = found.interval(policy.confidence), criterion.margin
    if criterion.kind == "floor":
        effect = stats.Interval(*(value - margin for value in share))
        p, mde = found.p_at_least(margin), found.reach(policy.confidence, POWER)
    else:
        effect = stats.Interval(margin - share.estimate, margin - share.high, margin - share.low)
        p, mde = found.p_at_most(margin), found.reach_down(policy.confidence, POWER)
    return Measured(
        criterion=criterion,
        baseline=criterion.kind,
        baseline_mean=margin,
        candidate_mean=share.estimate,
        n=len(candidate),
        clusters=found.clusters,
        effect=effect,
        pass_bound=0.0,
        fail_bound=0.0,
        p=p,
        mde=mde,
        noise=None,
        reason=f"candidate {_range(share)}, {criterion.kind} {margin:.2f}",
    )


def settled(measured: Sequence[Measured], policy: GatePolicy) -> tuple[CriterionResult, ...]:
    """The outcomes. Each passes on its own interval, as all must. Any that fails holds the candidate back, so that a
    failure must also stand up to Holm's adjustment over all of them; without that it is inconclusive.

    The silent ones stay in the family. A probe speaks when its baseline happened to score high, and by as much the
    difference is low: of those that speak alone, more than the nominal share would fail by chance
    (`benchmarks/gate_choices.py`)."""
    adjusted = stats.holm({each.criterion.name: each.p for each in measured})
    return tuple(_settled(each, adjusted[each.criterion.name], policy) for each in measured)


def _settled(measured: Measured, p_hold: float, policy: GatePolicy) -> CriterionResult:
    criterion, effect, reason = measured.criterion, measured.effect, measured.reason
    outcome: Outcome = "inconclusive"
    if not measured.silent and effect.low > measured.pass_bound:
        outcome = "pass"
    elif not measured.silent and effect.high <= measured.fail_bound:
        if p_hold <= policy.tail:
            outcome = "fail"
        else:
            reason += f"; below it, but not among so many criteria (Holm: p {p_hold:.3f} > {policy.tail:.3f})"
    return CriterionResult(
        name=criterion.name,
        kind=criterion.kind,
        suite=criterion.suite,
        metric=criterion.metric,
        n=measured.n,
        clusters=measured.clusters,
        baseline=measured.baseline,
        baseline_mean=measured.baseline_mean,
        candidate_mean=measured.candidate_mean,
        effect=effect.estimate,
        ci_low=effect.low,
        ci_high=effect.high,
        margin=criterion.margin,
        confidence=policy.confidence,
        mde=measured.mde,
        p_hold=p_hold,
        noise=measured.noise,
        outcome=outcome,
        reason=reason,
    )


def _range(interval: stats.Interval) -> str:
    return f"{interval.estimate:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
