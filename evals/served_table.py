"""What a dossier tells of an artifact as it is served: times, throughput and failures beside the baseline's, with
intervals. The gate goes by the shares in the results; these are the times behind them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from data_contracts.store import ArtifactStore
from data_contracts.verdicts import EvalResult
from evals import stats
from evals.as_served import ServedTimes
from evals.policy import GatePolicy
from evals.quantiles import quantile
from evals.run import SUBJECTS
from evals.serving_layer import METRICS, between, throughput
from evals.serving_speed import Answer, Timed
from evals.speedtest import round_name

_SHARES = {"median": 0.5, "95th percentile": 0.95}


class Row(NamedTuple):
    """One figure of every subject, in words with its interval, and the candidate's as a multiple of the baseline's."""

    figure: str
    subjects: tuple[str, ...]
    times: str


class Table(NamedTuple):
    """One measurement. ``machine`` is what it was made on; ``erased``: its times are no longer in the store."""

    suite: str
    baseline: str
    subjects: tuple[str, ...]
    requests: int
    rounds: int
    concurrency: int
    machine: str
    engine: str
    rows: tuple[Row, ...]
    erased: bool = False


def is_served(result: EvalResult) -> bool:
    """Whether a result is of the serving layer."""
    return any(METRICS.keys() <= item.scores.keys() for item in result.items)


def tables(store: ArtifactStore, policy: GatePolicy, results: Mapping[str, EvalResult]) -> list[Table]:
    """A table for each speed test among the results, which are named as in a verdict."""
    found = {result.suite: result for name, result in results.items() if name.endswith("/candidate")}
    return [_table(store, policy, result) for _, result in sorted(found.items()) if is_served(result)]


def _table(store: ArtifactStore, policy: GatePolicy, result: EvalResult) -> Table:
    if result.samples is None or not store.has(result.samples):
        return Table(result.suite, "", (), 0, 0, 0, "", result.engine, (), erased=True)
    times = store.get_manifest(result.samples, ServedTimes)
    subjects = tuple(name for name in SUBJECTS if name in times.timed)
    own, baseline = times.timed["candidate"], times.timed[times.baseline]
    sides = [times.timed[name] for name in subjects]
    rows: list[Row] = []
    for figure, of in (("first token", _first), ("between tokens", _gap)):
        multiples = _scores((a, _multiple(of(a), of(b))) for a, b in zip(own.answers, baseline.answers, strict=True))
        for name, share in _SHARES.items():
            told = [_told(policy, _scores((a, of(a)) for a in side.answers), share, 1000, ".0f") for side in sides]
            rows.append(Row(f"{figure}, ms, {name}", tuple(told), _told(policy, multiples, share, 1, ".2f")))
    multiples = _by_round([_multiple(a, b) for a, b in zip(throughput(own), throughput(baseline), strict=True)])
    told = [_told(policy, _by_round(throughput(side)), 0.5, 1, ".1f") for side in sides]
    rows.append(Row("tokens a second, median round", tuple(told), _told(policy, multiples, 0.5, 1, ".2f")))
    rows.append(Row("requests without a whole answer", tuple(_failures(policy, side) for side in sides), ""))
    return Table(
        suite=result.suite,
        baseline=times.baseline,
        subjects=subjects,
        requests=len(own.answers),
        rounds=len(own.busy_s),
        concurrency=times.concurrency,
        machine=str(times.setup.get("machine", "not told")),
        engine=times.engine,
        rows=tuple(rows),
    )


def _first(answer: Answer) -> float | None:
    return math.inf if answer.error else answer.first_token_s


def _gap(answer: Answer) -> float | None:
    return math.inf if answer.error else between(answer)


def _multiple(own: float | None, other: float | None) -> float | None:
    """``None`` where one of the two is; without an answer of one's own it is infinite."""
    if own is None or other is None:
        return None
    return own / other if other and math.isfinite(own) else math.inf


def _scores(values: Iterable[tuple[Answer, float | None]]) -> list[stats.Score]:
    return [
        stats.Score(str(answer.prompt), round_name(answer.round), value)
        for answer, value in values
        if value is not None
    ]


def _by_round(values: Sequence[float | None]) -> list[stats.Score]:
    names = ((round_name(number), value) for number, value in enumerate(values))
    return [stats.Score(name, name, value) for name, value in names if value is not None]


def _told(policy: GatePolicy, scores: Sequence[stats.Score], share: float, unit: float, form: str) -> str:
    if not scores:
        return "not told"
    found = quantile(scores, share, policy.confidence, policy.resamples, policy.seed)
    estimate, low, high = (format(unit * x, form) if math.isfinite(x) else "unbounded" for x in found)
    return f"{estimate} [{low}, {high}]"


def _failures(policy: GatePolicy, side: Timed) -> str:
    scores = [stats.Score(str(a.prompt), round_name(a.round), float(bool(a.error))) for a in side.answers]
    share = stats.cluster_share(scores, policy.resamples, policy.seed).interval(policy.confidence)
    return "{:.3f} [{:.3f}, {:.3f}]".format(*share)
