"""Retrain or wait? A record with its reasons and what retraining has cost so far; automation obeys it, nothing else."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Literal

from pydantic import JsonValue

from data_contracts.chain import AuditRecord
from data_contracts.digests import Digest
from data_contracts.frozen import Frozen
from pipelines.stages.protocols import Parts
from pipelines.stages.signals.drift import DriftReport
from pipelines.stages.signals.policy import SignalPolicy


class RetrainDecision(Frozen):
    """``effort_seconds`` is the median of past runs of the line, ``None`` when there was none."""

    product: str
    decision: Literal["retrain", "wait"]
    reasons: tuple[str, ...]
    drift: Digest
    release: Digest | None
    policy: Digest
    effort_seconds: int | None


def decide(
    report: DriftReport,
    policy: SignalPolicy,
    log: Sequence[AuditRecord],
    past_run_seconds: Sequence[float],
    now: datetime,
) -> RetrainDecision:
    """Pure: retrain when drift is sustained, was not answered before, and no retraining is within the cool-down."""
    objection = _objection(report, policy, log, now) if report.drifted else None
    return RetrainDecision(
        product=report.product,
        decision="retrain" if report.drifted and objection is None else "wait",
        reasons=(report.reason,) if objection is None else (report.reason, objection),
        drift=report.digest,
        release=report.release,
        policy=policy.digest,
        effort_seconds=effort(past_run_seconds),
    )


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
    parts: Parts, report: DriftReport, policy: SignalPolicy, past_run_seconds: Sequence[float]
) -> RetrainDecision:
    """Decide, store and chain. One drift report starts at most one retraining, however often it is asked about."""
    with parts.locks.hold(f"signals-{report.product}"):
        log = parts.log.records()
        decision = decide(report, policy, log, past_run_seconds, datetime.now(UTC))
        parts.store.put_manifest(decision)
        if _newest(log, report.product) != (decision.decision, report.digest):
            body: dict[str, JsonValue] = {
                "decision": decision.decision,
                "record": decision.digest,
                "drift": report.digest,
                "release": report.release,
                "reasons": list(decision.reasons),
                "effort_seconds": decision.effort_seconds,
            }
            parts.log.append("retrain.decided", report.product, body, actor="signals")
    return decision


def _objection(report: DriftReport, policy: SignalPolicy, log: Sequence[AuditRecord], now: datetime) -> str | None:
    """Why sustained drift is not answered with a retraining now."""
    retrained = [
        record
        for record in log
        if record.event == "retrain.decided"
        and record.product == report.product
        and record.body["decision"] == "retrain"
    ]
    for record in retrained:
        if record.body["drift"] == report.digest:
            return f"this drift was answered before (record {record.sequence})"
    if retrained and now - retrained[-1].time < timedelta(hours=policy.cool_down_hours):
        return (
            f"retraining was decided less than {policy.cool_down_hours:g} hours ago (record {retrained[-1].sequence})"
        )
    return None


def _newest(log: Sequence[AuditRecord], product: str) -> tuple[str, str] | None:
    for record in reversed(log):
        if record.event == "retrain.decided" and record.product == product:
            return str(record.body["decision"]), str(record.body["drift"])
    return None
