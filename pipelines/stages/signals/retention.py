"""Traces that are old enough go, unless somebody may still ask for them. What went is in the audit log, by number."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from pydantic import JsonValue

from data_contracts.chain import AuditRecord
from data_contracts.lifecycle import follow
from pipelines.stages.protocols import Parts

_ENDS = ("canary.recorded", "promotion.recorded", "rollback.recorded", "release.revoked")
"""After these a canary that was begun before is over."""


def expire(parts: Parts, days: int, now: datetime | None = None) -> list[AuditRecord]:
    """Delete what ended more than ``days`` days ago and is not needed; the record of each product that lost any. The
    record comes first: after a crash the rest goes the next time."""
    before = (now or datetime.now(UTC)) - timedelta(days=days)
    log = parts.log.records()
    done: list[AuditRecord] = []
    for product in parts.traces.products():
        ends = min(before, needed_since(log, product) or before), min(before, _shadowed_since(log, product) or before)
        traces, shadows = parts.traces.older(product, *ends)
        if traces or shadows:
            body: dict[str, JsonValue] = {"before": ends[0].isoformat(), "traces": traces, "shadows": shadows}
            done.append(parts.log.append("traces.expired", product, body, actor="retention"))
            parts.traces.delete(product, *ends)
    return done


def expire_feedback(parts: Parts, days: int, now: datetime | None = None) -> list[AuditRecord]:
    """The same for feedback and the words of answers, whoever may want them. Rows that were made of them stay."""
    before = (now or datetime.now(UTC)) - timedelta(days=days)
    done: list[AuditRecord] = []
    for product in parts.feedback.products():
        exchanges, feedback = parts.feedback.older(product, before)
        if exchanges or feedback:
            body: dict[str, JsonValue] = {"before": before.isoformat(), "exchanges": exchanges, "feedback": feedback}
            done.append(parts.log.append("feedback.expired", product, body, actor="retention"))
            parts.feedback.delete(product, before)
    return done


def needed_since(log: Sequence[AuditRecord], product: str) -> datetime | None:
    """From when on a product's traces are needed, whatever their age. A note for support is written from those since
    the promotion of what was rolled back: of what is live, which may be rolled back any day, and of a rollback whose
    root cause is not signed yet. The evidence of a canary is judged from those since it began."""
    course = follow(log)
    asked = {stack[-1] for (name, _), stack in course.stacks.items() if name == product}
    asked |= {str(log[sequence].body["from"]) for (name, _), sequence in course.locked.items() if name == product}
    promoted = {str(each.body["release"]): each.time for each in log if each.event == "promotion.recorded"}
    needed = [promoted[release] for release in asked if release in promoted]
    moves = [each for each in log if each.product == product and each.event in ("canary.begun", *_ENDS)]
    if moves and moves[-1].event == "canary.begun":
        needed.append(moves[-1].time)
    return min(needed, default=None)


def _shadowed_since(log: Sequence[AuditRecord], product: str) -> datetime | None:
    """The newest shadowing is compared, also when it is over."""
    begun = [each.time for each in log if each.event == "shadow.begun" and each.product == product]
    return begun[-1] if begun else None
