"""The audit log: append-only, hash-chained, folded into what is live. Pure; `resources.audit_log` stores it.

A record's digest covers its predecessor's, so that an edit, a removal or a reorder breaks the chain; a signed head
held outside the store shows truncation. The key that signs heads is itself rotated by a record of the chain.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from data_contracts.digests import Digest, canonical_json, sha256_bytes
from data_contracts.errors import Tampered
from data_contracts.frozen import Frozen
from data_contracts.lifecycle import follow

ALL = "*"
"""In place of a record's product: it is about all of them."""
GENESIS: Digest = sha256_bytes(b"assay-log-v1")
LOG_NAMESPACE = "assay-log-v1"
APPROVAL_NAMESPACE = "assay-approval-v1"
SPOTCHECK_NAMESPACE = "assay-spotcheck-v1"
ROOT_CAUSE_NAMESPACE = "assay-root-cause-v1"

EventKind = Literal[
    "dataset.recorded",
    "checkpoint.recorded",
    "model.selected",
    "verdict.recorded",
    "release.registered",
    "approval.accepted",
    "approval.rejected",
    "spotcheck.recorded",
    "canary.begun",
    "canary.recorded",
    "shadow.begun",
    "shadow.ended",
    "promotion.recorded",
    "rollback.recorded",
    "root-cause.filed",
    "projection.repaired",
    "champion.unverified",
    "champion.verified",
    "log-key.rotated",
    "drift.recorded",
    "traces.expired",
    "feedback.accepted",
    "feedback.rejected",
    "feedback.expired",
    "retrain.decided",
    "retrain.proposed",
    "run.failed",
    "decision.disputed",
    "incident.opened",
    "incident.closed",
    "key.created",
    "release.revoked",
    "release.deprecated",
    "release.retired",
    "release.archived",
    "release.exported",
    "notice.sent",
    "erasure.begun",
    "erasure.completed",
    "tenant.archived",
    "tenant.shredded",
    "tenant.restored",
]


class ChainBroken(Tampered):
    """The audit log is not what was written; the message names the record."""


class AuditRecord(Frozen):
    """One event. ``time`` is UTC, set when chained; ``body`` holds digests and names, never row text."""

    sequence: int
    previous: Digest
    time: datetime
    actor: str
    event: EventKind
    product: str
    body: dict[str, JsonValue]


def follows(record: AuditRecord, before: AuditRecord | None) -> bool:
    """Whether ``record`` is the one right after ``before`` (``None``: the first of the log)."""
    if before is None:
        return record.sequence == 0 and record.previous == GENESIS
    return record.sequence == before.sequence + 1 and record.previous == before.digest


def check_chain(records: Iterable[AuditRecord]) -> Digest:
    """Head digest of an intact log. Raises `ChainBroken` naming the first record that does not follow."""
    head, expected = GENESIS, 0
    for record in records:
        if record.sequence != expected:
            raise ChainBroken(f"audit log: record {expected} is missing (found {record.sequence} in its place)")
        if record.previous != head:
            raise ChainBroken(f"audit log: record {record.sequence} does not follow record {record.sequence - 1}")
        head, expected = record.digest, expected + 1
    return head


def head_at(records: Sequence[AuditRecord], sequence: int) -> Digest | None:
    """The head as it was when record ``sequence`` was the last; -1 names the empty log."""
    if sequence == -1:
        return GENESIS
    return records[sequence].digest if 0 <= sequence < len(records) else None


def rotation_message(public_key: str, previous: Digest) -> bytes:
    """What the old log key signs to hand over to ``public_key`` right after the head ``previous``."""
    return canonical_json({"previous": previous, "public_key": public_key})


def live_releases(records: Iterable[AuditRecord]) -> Mapping[tuple[str, str], Digest]:
    """(product, environment) -> release that is live, by the promotion, rollback and revocation records alone."""
    return {where: stack[-1] for where, stack in follow(records).stacks.items() if stack[-1] is not None}


def live_stack(records: Iterable[AuditRecord], product: str, environment: str) -> list[Digest | None]:
    """What is live (last) and what each rollback would go back to; the base model, ``None``, is always first.

    A promotion goes on top, a rollback takes off the top, so that no rollback leads to what was rolled back from. A
    release that was revoked, retired or archived is taken out wherever it stands: what was live below it is live
    again.
    """
    return list(follow(records).stacks.get((product, environment), [None]))


def revoked_releases(records: Iterable[AuditRecord]) -> Mapping[Digest, AuditRecord]:
    """Releases that may not be served any more -> the record that says so."""
    return {str(record.body["release"]): record for record in records if record.event == "release.revoked"}
