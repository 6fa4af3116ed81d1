"""The noise floor: how far the baseline's own mean moves when it is run again with other seeds."""

from collections.abc import Mapping, Sequence

from data_contracts.errors import Refused
from evals import stats
from evals.gate import scores_of
from evals.policy import GatePolicy
from evals.protocols import Scored


def noise_floors(
    policy: GatePolicy, results: Mapping[str, Scored], reruns: Sequence[Mapping[str, Scored]]
) -> dict[str, float]:
    """Criterion -> the distance between the highest and the lowest mean of its baseline and of the baseline's re-runs,
    on the same items. Empty without re-runs. Each of ``reruns`` maps ``suite/subject`` to a result, as ``results`` do.

    A candidate that is one more such run lies beyond all of r re-runs and the baseline with probability 2 / (r + 2): it
    takes many to be sure of the floor, and one to know its order. Raises `Refused` for a re-run on other items.
    """
    if not reruns:
        return {}
    return {
        each.name: _spread(results, reruns, each.suite, each.against, each.metric)
        for each in policy.criteria
        if each.against is not None and f"{each.suite}/{each.against}" in results
    }


def _spread(
    results: Mapping[str, Scored], reruns: Sequence[Mapping[str, Scored]], suite: str, subject: str, metric: str
) -> float:
    first = scores_of(results, suite, subject, metric)
    means = [stats.mean(first)]
    for rerun in reruns:
        again = scores_of(rerun, suite, subject, metric)
        try:
            stats.paired_differences(first, again)
        except stats.StatsError as error:
            raise Refused(f"a re-run of {subject} on suite {suite} is of other items: {error}") from error
        means.append(stats.mean(again))
    return max(means) - min(means)
