"""Retrain, fix something else, hold or wait? A record with its reasons, what retraining would take and what it
promises; automation obeys it, nothing else. What is held is not lost: it is decided again when what held it is over."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Literal, NamedTuple

from pydantic import Field, JsonValue

from data_contracts.chain import AuditRecord
from data_contracts.digests import Digest, sha256_json
from data_contracts.errors import BadInput, Missing
from data_contracts.frozen import Frozen
from pipelines.stages.protocols import Parts
from pipelines.stages.signals.adjudication import undecided
from pipelines.stages.signals.drift import DriftReport
from pipelines.stages.signals.freeze import Freeze, freeze_file, frozen
from pipelines.stages.signals.incident import incident_of
from pipelines.stages.signals.outlook import Outlook
from pipelines.stages.signals.policy import Remedy, SignalPolicy

BUDGET_PERIOD = timedelta(days=30)
Holder = Literal["freeze", "incident", "cool-down", "budget", "adjudication"]
_MEANS: dict[Remedy, str] = {
    "retrain": "retraining",
    "prompt": "prompt, template or server settings",
    "documents": "the documents that it retrieves",
    "serving": "serving: placement, limits or hardware",
}


class RetrainDecision(Frozen):
    """``hold``: retraining is due, and ``held_by`` is against it, until ``not_before`` where that is known. ``fix``:
    what drifted is mended by ``remedies`` and not by training. ``episode`` names what drifted under which release.
    ``effort_seconds`` is the median of past runs of the line, ``None`` when there was
    none; ``outlook`` is what retraining would take and gain, ``None`` where nothing drifted."""

    product: str
    decision: Literal["retrain", "fix", "hold", "wait"]
    held_by: Holder | None
    not_before: datetime | None
    reasons: tuple[str, ...]
    remedies: tuple[Remedy, ...] = Field(default=(), exclude_if=lambda remedies: not remedies)
    drift: Digest
    episode: Digest
    release: Digest | None
    policy: Digest
    effort_seconds: int | None
    outlook: Outlook | None = Field(default=None, exclude_if=lambda outlook: outlook is None)


class Hold(NamedTuple):
    by: Holder
    why: str
    until: datetime | None


def decide(
    report: DriftReport,
    policy: SignalPolicy,
    log: Sequence[AuditRecord],
    past_run_seconds: Sequence[float],
    now: datetime,
    freeze: Freeze | None = None,
    outlook: Outlook | None = None,
    waiting: int = 0,
) -> RetrainDecision:
    """Pure: retrain when a drift is sustained that training mends, that was not answered before, and whose projected
    gain, where there is one, is worth it; unless something holds it. ``waiting``: corrections that a run would learn
    from, once a person has looked at them."""
    seconds = effort(past_run_seconds)
    drifted = {each.feature: policy.remedy(each.feature) for each in report.features if each.sustained}
    trains = "retrain" in drifted.values()
    answered = _answered(report, policy, log) if trains else None
    against = answered or (_not_worth(outlook, policy) if trains else None)
    hold = _held(report.product, policy, log, seconds, now, freeze, waiting) if trains and not against else None
    due: Literal["retrain", "fix", "wait"] = "wait"
    if drifted and not against:
        due = "retrain" if trains else "fix"
    others = {feature: remedy for feature, remedy in drifted.items() if remedy != "retrain"}
    said = [report.reason, *(_mended(*each) for each in others.items()), against, hold.why if hold else None]
    return RetrainDecision(
        product=report.product,
        decision="hold" if hold else due,
        held_by=hold.by if hold else None,
        not_before=hold.until if hold else None,
        reasons=tuple(each for each in said if each),
        remedies=tuple(sorted(set(others.values()))),
        drift=report.digest,
        episode=episode(report),
        release=report.release,
        policy=policy.digest,
        effort_seconds=seconds,
        outlook=outlook if drifted else None,
    )


def episode(report: DriftReport) -> Digest:
    """The release and what of its traffic drifted: newer windows of the same drift are the same episode."""
    return sha256_json([report.release, sorted(each.feature for each in report.features if each.sustained)])


def effort(past_run_seconds: Sequence[float]) -> int | None:
    """What a run of the line is expected to take."""
    return round(median(past_run_seconds)) if past_run_seconds else None


def recorded_effort(log: Sequence[AuditRecord], product: str) -> list[float]:
    """What the product's newest decision said about past runs; without one, how long its stages last trained."""
    told = [
        float(str(record.body["effort_seconds"]))
        for record in log
        if record.event == "retrain.decided" and record.product == product and record.body["effort_seconds"] is not None
    ]
    trained = {
        record.body["stage"]: float(str(record.body["seconds"]))
        for record in log
        if record.event == "checkpoint.recorded" and record.product == product and "seconds" in record.body
    }
    return told[-1:] or ([sum(trained.values())] if trained else [])


def decide_and_record(
    parts: Parts,
    report: DriftReport,
    policy: SignalPolicy,
    past_run_seconds: Sequence[float],
    outlook: Outlook | None = None,
    now: datetime | None = None,
    waiting: int = 0,
) -> RetrainDecision:
    """Decide, store and chain. One episode of drift starts at most one retraining, however often it is asked about."""
    with parts.locks.hold(f"signals-{report.product}"):
        log, now = parts.log.records(), now or datetime.now(UTC)
        freeze = frozen(freeze_file(parts.home), report.product, now)
        decision = decide(report, policy, log, past_run_seconds, now, freeze, outlook, waiting)
        parts.store.put_manifest(decision)
        body: dict[str, JsonValue] = {
            "decision": decision.decision,
            "held_by": decision.held_by,
            "record": decision.digest,
            "drift": report.digest,
            "episode": decision.episode,
            "features": list[JsonValue](_mended_by_training(report, policy)),
            "release": report.release,
            "reasons": list(decision.reasons),
            "remedies": list(decision.remedies),
            "effort_seconds": decision.effort_seconds,
        }
        newest = newest_decision(log, report.product)
        told = ("decision", "held_by", "drift")
        if newest is None or any(newest.body.get(name) != body[name] for name in told):
            parts.log.append("retrain.decided", report.product, body, actor="signals")
    return decision


def is_released(parts: Parts, product: str, policy: SignalPolicy, now: datetime) -> bool:
    """Whether the product's newest decision was to hold, and what held it is over: then it is to be decided again."""
    log = parts.log.records()
    newest = newest_decision(log, product)
    if newest is None or newest.body["decision"] != "hold":
        return False
    seconds = recorded_effort(log, product)
    freeze, waiting = frozen(freeze_file(parts.home), product, now), 0
    if newest.body["held_by"] == "adjudication":
        waiting = waiting_for(parts, parts.store.get_manifest(str(newest.body["drift"]), DriftReport))
    return _held(product, policy, log, effort(seconds), now, freeze, waiting) is None


def waiting_for(parts: Parts, report: DriftReport) -> int:
    """Corrections of the traffic that the report is about that nobody has looked at. What users say later waits too,
    and holds nothing: else traffic that does not end would hold for ever."""
    return undecided(parts, report.product, report.until) if report.until else 0


def newest_decision(log: Sequence[AuditRecord], product: str) -> AuditRecord | None:
    return next((r for r in reversed(log) if r.event == "retrain.decided" and r.product == product), None)


def disputes_of(log: Sequence[AuditRecord], decided: AuditRecord) -> list[AuditRecord]:
    return [r for r in log if r.event == "decision.disputed" and r.body["decided"] == decided.digest]


def dispute(parts: Parts, product: str, reason: str, actor: str) -> AuditRecord:
    """Chain somebody's objection to the newest decision. It changes no decision: people read it. Raises `Missing`
    without a decision, `BadInput` without a reason."""
    newest = newest_decision(parts.log.records(), product)
    if newest is None:
        raise Missing(f"nothing was decided about {product} yet")
    if not reason.strip():
        raise BadInput("a dispute needs a reason")
    return parts.log.append("decision.disputed", product, {"decided": newest.digest, "reason": reason}, actor=actor)


def _mended(feature: str, remedy: Remedy) -> str:
    return f"{feature} is not mended by training; look at {_MEANS[remedy]}"


def _not_worth(outlook: Outlook | None, policy: SignalPolicy) -> str | None:
    if outlook is None or outlook.gain is None or outlook.gain.low >= policy.worth:
        return None
    return (
        f"retraining may not be worth it: {outlook.more} rows more can be relied on to lower the error on "
        f"{outlook.target} by {outlook.gain.low:.3f}, and the policy asks for {policy.worth:g}; it is decided again "
        "with each new window, and a person may start the line"
    )


def _mended_by_training(report: DriftReport, policy: SignalPolicy) -> list[str]:
    return sorted(each for each in report.sustained if policy.remedy(each) == "retrain")


def _answered(report: DriftReport, policy: SignalPolicy, log: Sequence[AuditRecord]) -> str | None:
    """By the retrainings of this release: nothing drifts that training mends but what drifted then. That less of it
    drifts now, or something beside it that training does not mend, makes no new drift."""
    wanted, known = set(_mended_by_training(report, policy)), set[str]()
    for record in _retrainings(log, report.product):
        features = record.body.get("features")
        if record.body.get("release") == report.release and isinstance(features, list):
            known |= set(map(str, features))
        same = episode(report) == record.body.get("episode") or report.digest == record.body["drift"]
        if same or wanted <= known:
            return (
                f"this drift was answered before (record {record.sequence}): another release, or another feature that "
                "drifts, begins anew; a person may start the line"
            )
    return None


def _held(
    product: str,
    policy: SignalPolicy,
    log: Sequence[AuditRecord],
    seconds: int | None,
    now: datetime,
    freeze: Freeze | None,
    waiting: int,
) -> Hold | None:
    if freeze is not None:
        return Hold("freeze", freeze.why, freeze.until)
    if incident := incident_of(log, product):
        return Hold("incident", f"an incident is open (record {incident.sequence}): {incident.body['reason']}", None)
    if retrained := _retrainings(log, product):
        until = retrained[-1].time + timedelta(hours=policy.cool_down_hours)
        if now < until:
            last = retrained[-1].sequence
            why = f"retraining was decided less than {policy.cool_down_hours:g} hours ago (record {last})"
            return Hold("cool-down", why, until)
    if over := _over_budget(product, policy, log, seconds or 0, now):
        return over
    if waiting:
        why = f"{waiting} corrections that it would learn from wait for a person: `assay feedback queue {product}`"
        return Hold("adjudication", why, None)
    return None


def _over_budget(
    product: str, policy: SignalPolicy, log: Sequence[AuditRecord], seconds: int, now: datetime
) -> Hold | None:
    """Spent are the trainings of this product that ended in the last 30 days; the next is expected to take
    ``seconds``. It is over when enough of them are older."""
    budget = policy.budget_hours * 3600
    spent = [
        (record.time, float(str(record.body["seconds"])))
        for record in log
        if record.event == "checkpoint.recorded"
        and record.product == product
        and "seconds" in record.body
        and now - record.time < BUDGET_PERIOD
    ]
    total = sum(each for _, each in spent)
    if total + seconds <= budget:
        return None
    why = (
        f"trainings of the last {BUDGET_PERIOD.days} days took {total / 3600:.1f} hours, the next is expected to take "
        f"{seconds / 3600:.1f}, and the budget is {policy.budget_hours:g}"
    )
    for time, each in spent:
        total -= each
        if total + seconds <= budget:
            return Hold("budget", why, time + BUDGET_PERIOD)
    return Hold("budget", why, None)


def _retrainings(log: Sequence[AuditRecord], product: str) -> list[AuditRecord]:
    return [
        record
        for record in log
        if record.event == "retrain.decided" and record.product == product and record.body["decision"] == "retrain"
    ]
