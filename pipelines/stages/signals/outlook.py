"""What retraining would take, and what it promises: effort by past runs, gain by the curve through past releases."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from data_contracts.chain import AuditRecord, live_releases
from data_contracts.digests import Digest
from data_contracts.frozen import Frozen
from data_contracts.manifests import DatasetManifest, ModelManifest, ReleaseManifest
from data_contracts.verdicts import EvalResult, GateVerdict
from evals import stats
from evals.gate import scores_of
from evals.learning_curve import Gain, Point, TooFewPoints, gain
from evals.policy import Criterion, load_policy
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.signals.costs import Prices, prices_file, read_prices
from pipelines.stages.signals.policy import SignalPolicy


class Effort(Frozen):
    """Of the newest training of each stage, on GPUs and on machines without; ``None`` where nothing was trained yet.
    ``label_hours`` are a person's. ``cost``: in ``currency``, ``None`` where a price is not stated."""

    gpu_hours: float | None
    machine_hours: float | None
    label_hours: float
    cost: float | None
    currency: str | None


class Outlook(Frozen):
    """``target``: suite and metric whose error the curve is about. ``rows`` are what the live release learned from,
    ``more`` those that feedback since would add, at most. ``gain``: ``None`` where ``why_not`` says why."""

    target: str
    points: tuple[Point, ...]
    rows: int
    more: int
    gain: Gain | None
    why_not: str
    effort: Effort

    @property
    def words(self) -> tuple[str, ...]:
        """For whoever reads or disputes the decision."""
        return self._promise, self._effort

    @property
    def _promise(self) -> str:
        if self.gain is None:
            return f"what retraining would gain is not projected: {self.why_not}"
        found = self.gain
        return (
            f"{len(self.points)} past releases say that {self.more} rows more than {self.rows} would lower the error "
            f"on {self.target} by {found.estimate:.3f} (between {found.low:.3f} and {found.high:.3f}) from "
            f"{found.error:.3f}"
        )

    @property
    def _effort(self) -> str:
        it = self.effort
        trained = "nothing was trained yet"
        if it.gpu_hours is not None and it.machine_hours is not None:
            machines = [(it.gpu_hours, "GPU hours"), (it.machine_hours, "hours of machines without a GPU")]
            trained = "training last took " + (" and ".join(f"{h:.2f} {on}" for h, on in machines if h) or "no time")
        amount = "" if it.cost is None else f"; together {it.cost:.2f} {it.currency}"
        return f"effort: {trained}, labelling {self.more} rows would take {it.label_hours:.1f} hours{amount}"


def outlook(parts: Parts, product: Product, policy: SignalPolicy, now: datetime) -> Outlook:
    log = parts.log.records()
    registered = [r for r in log if r.event == "release.registered" and r.product == product.name]
    live = live_releases(log).get((product.name, product.environment))
    made = next((r for r in registered if r.body["release"] == live), None)
    more = 0 if made is None else parts.feedback.corrected(product.name, made.time, now)
    gate = load_policy(product.file("gate_policy", product.gate_policy))
    target = next((each for each in gate.criteria if each.kind == "superiority"), gate.criteria[0])
    history = list(_history(parts, registered, target, policy.confidence))
    rows = next((point.rows for release, point in history if release == live), 0)
    points = tuple(point for _, point in history)
    found, why_not = None, ""
    if live is None:
        why_not = "no release is live"
    elif not rows:
        why_not = f"the live release was not measured on {target.suite} as the newest was"
    elif not more:
        why_not = "no correction came since the live release; what else is new in its sources is not known"
    else:
        try:
            found = gain(points, rows, more, policy.confidence)
        except TooFewPoints as error:
            why_not = str(error)
    return Outlook(
        target=f"{target.suite} ({target.metric})",
        points=points,
        rows=rows,
        more=more,
        gain=found,
        why_not=why_not,
        effort=_effort(parts, product.name, more * policy.label_minutes / 60, read_prices(prices_file(parts.home))),
    )


def _history(
    parts: Parts, registered: Sequence[AuditRecord], target: Criterion, confidence: float
) -> Iterator[tuple[Digest, Point]]:
    """Release and point of each model, those that were measured as the newest was: same base, edition and decoding."""
    wanted = None
    seen: set[Digest] = set()
    for record in reversed(registered):
        release = parts.store.get_manifest(str(record.body["release"]), ReleaseManifest)
        verdict = parts.store.get_manifest(release.verdict, GateVerdict)
        named = verdict.results.get(f"{target.suite}/candidate")
        if named is None or release.model in seen:
            continue
        seen.add(release.model)
        result = parts.store.get_manifest(named, EvalResult)
        how = (release.base, result.suite_digest, result.decoding)
        wanted = wanted or how
        if how == wanted:
            model = parts.store.get_manifest(release.model, ModelManifest)
            scores = scores_of({f"{target.suite}/candidate": result}, target.suite, "candidate", target.metric)
            share = stats.cluster_share(scores).interval(confidence)
            point = Point(
                rows=_learned_from(parts, model), error=1 - share.estimate, low=1 - share.high, high=1 - share.low
            )
            yield release.digest, point


def _learned_from(parts: Parts, model: ModelManifest) -> int:
    """Training rows; a data set that does not tell its splits counts whole."""
    found = 0
    for each in (parts.store.get_manifest(name, DatasetManifest) for name in model.datasets):
        rows = each.facts.get("rows")
        train = rows.get("train") if isinstance(rows, dict) else None
        found += train if isinstance(train, int) else each.counts.rows_out
    return found


def _effort(parts: Parts, product: str, label_hours: float, prices: Prices | None) -> Effort:
    newest = {run.stage: run for run in reversed(parts.runs.find(product, outcomes=["done"]))}
    gpu = sum(run.gpu_seconds for run in newest.values()) / 3600 if newest else None
    other = sum(run.seconds for run in newest.values() if not run.gpu_seconds) / 3600 if newest else None
    cost = None
    if prices and prices.labelling_hour is not None and gpu is not None and other is not None:
        cost = 60 * (gpu * prices.gpu_minute + other * prices.cpu_minute) + label_hours * prices.labelling_hour
    return Effort(
        gpu_hours=gpu,
        machine_hours=other,
        label_hours=label_hours,
        cost=cost,
        currency=prices.currency if prices else None,
    )
