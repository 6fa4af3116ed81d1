"""Deprecate, retire and archive a release: a reason in the audit log, and the move only where it is legal.

The record is the act. The gateway reads it at once; the reconciler brings the registry's tags in line.
"""

from datetime import UTC, datetime

from pydantic import JsonValue

from data_contracts.chain import AuditRecord
from data_contracts.digests import Digest
from data_contracts.errors import BadInput, Refused
from data_contracts.lifecycle import Course, Move, follow
from pipelines.stages.protocols import Parts


def deprecate(
    parts: Parts,
    release: Digest,
    sunset: datetime,
    reason: str,
    actor: str,
    successor: Digest | None = None,
    now: datetime | None = None,
) -> AuditRecord:
    """From now on its answers carry the notice; from ``sunset`` on there are none. Done again, it moves the sunset to a
    later time, and replaces reason and successor."""
    if sunset <= (now or datetime.now(UTC)):
        raise BadInput(f"the sunset {sunset.isoformat()} has passed: name a later one, until which the release answers")
    return _chain(parts, "release.deprecated", release, reason, actor, sunset, successor)


def retire(parts: Parts, release: Digest, reason: str, actor: str) -> AuditRecord:
    """It never serves again, and no rollback leads to it. A live release is refused."""
    return _chain(parts, "release.retired", release, reason, actor)


def archive(parts: Parts, release: Digest, reason: str, actor: str) -> AuditRecord:
    """The end: of a retired release, or of a candidate that nobody wants. All of it stays, to be verified."""
    return _chain(parts, "release.archived", release, reason, actor)


def parse_sunset(text: str) -> datetime:
    """A day (its beginning, UTC) or a time with its zone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"{text!r} is no day: write 2030-01-31, or a time with its zone, 2030-01-31T12:00Z") from error
    if found.tzinfo is None and len(text) > len("2030-01-31"):
        raise BadInput(f"{text!r} names no time zone: write 2030-01-31T12:00Z")
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def _chain(
    parts: Parts,
    move: Move,
    release: Digest,
    reason: str,
    actor: str,
    sunset: datetime | None = None,
    successor: Digest | None = None,
) -> AuditRecord:
    if not reason.strip():
        raise BadInput("a reason is needed: it stays in the audit log")
    course = follow(parts.log.records())
    if release not in course.standings:
        raise Refused(course.refusal(move, release))
    with parts.locks.hold(f"live-{course.standings[release].product}"):
        course = follow(parts.log.records())
        why = course.refusal(move, release, sunset) or _no_successor(course, release, successor)
        if why:
            raise Refused(why)
        known = course.standings[release]
        body: dict[str, JsonValue] = {"environment": known.environment, "release": release, "reason": reason}
        if sunset is not None:
            body |= {"sunset": sunset.isoformat(), "successor": successor}
        return parts.log.append(move, known.product, body, actor)


def _no_successor(course: Course, release: Digest, successor: Digest | None) -> str:
    """Why this release cannot be the other's successor; empty when it can, or when none is named."""
    if successor is None:
        return ""
    known, other = course.standings[release], course.standings.get(successor)
    if other is None:
        return f"the successor {successor} is no registered release: `assay releases` lists them"
    if successor == release or (other.product, other.environment) != (known.product, known.environment):
        return f"the successor {successor} is not another release of {known.product}/{known.environment}"
    if other.state not in ("development", "staging", "production"):
        return f"the successor {successor} is in {other.state} itself"
    return ""
