"""The noise floor: how far the baseline's own mean moves when it is run again with other seeds."""

from collections.abc import Mapping, Sequence

from data_contracts.digests import Digest
from data_contracts.errors import Missing, Refused
from data_contracts.store import ArtifactStore
from data_contracts.verdicts import EvalResult
from evals import stats
from evals.decoding import Decoding
from evals.policy import GatePolicy, NoiseRuns
from evals.run import NO_TEMPLATE
from evals.trust import check_judges

_SAME = ("product", "suite", "suite_digest", "artifact", "template")


def noise_floor(baseline: Sequence[stats.Score], reruns: Sequence[Sequence[stats.Score]]) -> float | None:
    """The distance between the highest and the lowest mean of a baseline and of its re-runs, on the same items. None
    without re-runs.

    A candidate that is one more such run lies beyond all of r re-runs and the baseline with probability 2 / (r + 2): it
    takes many to be sure of the floor, and one to know its order. Raises `StatsError` for a re-run on other items.
    """
    if not reruns:
        return None
    for again in reruns:
        try:
            stats.paired_differences(baseline, again)
        except stats.StatsError as error:
            raise stats.StatsError(f"a re-run of its baseline is of other items: {error}") from error
    means = [stats.mean(each) for each in (baseline, *reruns)]
    return max(means) - min(means)


def stored_reruns(
    store: ArtifactStore,
    policy: GatePolicy,
    results: Mapping[str, EvalResult],
    reruns: Mapping[str, Sequence[Digest]],
) -> list[dict[str, EvalResult]]:
    """For each of the policy's seeds: ``suite/subject`` -> what that baseline scored with it. Empty where the policy
    asks for none. ``results`` are those that the re-runs repeat.

    Raises `Refused` for one that is missing, or that is not this baseline on this question paper with that seed.
    """
    noise = policy.noise
    if noise is None:
        return []
    names = sorted({f"{suite}/{subject}" for suite, subject in policy.baselines} & results.keys())
    for name in names:
        if (found := len(reruns.get(name, ()))) != len(noise.seeds):
            raise Refused(
                f"policy {policy.name} asks for re-runs of {name} with {len(noise.seeds)} seeds, and {found} are "
                "there: evaluate again"
            )
    runs: list[dict[str, EvalResult]] = []
    for number, seed in enumerate(noise.seeds):
        run = {name: store.get_manifest(reruns[name][number], EvalResult) for name in names}
        for name, again in run.items():
            _check_rerun(store, noise, seed, name, results[name], again)
        check_judges(store, run)
        runs.append(run)
    return runs


def _check_rerun(
    store: ArtifactStore, noise: NoiseRuns, seed: int, name: str, first: EvalResult, again: EvalResult
) -> None:
    what = f"the re-run of {name} with seed {seed}"
    for field in _SAME:
        if getattr(again, field) != getattr(first, field):
            raise Refused(f"{what} has another {field} than what it repeats: evaluate again")
    if first.template == NO_TEMPLATE:  # likelihoods: no seed decides them, so that a re-run is the same result
        if again.decoding != first.decoding:
            raise Refused(f"{what} was run by another task of lm-eval: evaluate again")
        return
    try:
        decoding = store.get_manifest(again.decoding, Decoding)
    except Missing as error:
        raise Refused(f"{what} does not tell how it was decoded: {error}") from error
    if decoding != decoding.sampled(noise.temperature, seed) or decoding.greedy().digest != first.decoding:
        raise Refused(
            f"{what} at temperature {noise.temperature:g} was decoded with seed {decoding.seed} at "
            f"{decoding.temperature:g}, or otherwise unlike what it repeats: evaluate again"
        )
