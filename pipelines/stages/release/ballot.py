"""Counting decisions on a release, by the audit log: what still counts, who rejected, who approved.

Each reviewer's newest decision stands. One standing rejection blocks; approvals end with the next promotion or
rollback of the product, so that each serves once.
"""

from collections.abc import Sequence

from data_contracts.chain import AuditRecord
from data_contracts.manifests import ReleaseManifest


def decided(records: Sequence[AuditRecord], release: ReleaseManifest) -> list[AuditRecord]:
    """Each reviewer's newest decision on this release, in the order chained; approvals only since the last move."""
    moved = last_move(records, release.product, release.environment)
    newest: dict[str, AuditRecord] = {}
    for record in records:
        if record.event in ("approval.accepted", "approval.rejected") and record.body["release"] == release.digest:
            newest.pop(str(record.body["principal"]), None)
            newest[str(record.body["principal"])] = record
    return [r for r in newest.values() if r.event == "approval.rejected" or r.sequence > moved]


def rejections(records: Sequence[AuditRecord], release: ReleaseManifest) -> list[AuditRecord]:
    return [record for record in decided(records, release) if record.event == "approval.rejected"]


def approvals(records: Sequence[AuditRecord], release: ReleaseManifest) -> list[AuditRecord]:
    """Standing approvals of different people with different keys: one person, or one key, counts once."""
    counted: list[AuditRecord] = []
    keys: set[str] = set()
    for record in decided(records, release):
        if record.event == "approval.accepted" and str(record.body["key"]) not in keys:
            keys.add(str(record.body["key"]))
            counted.append(record)
    return counted


def last_move(records: Sequence[AuditRecord], product: str, environment: str) -> int:
    """Sequence of the last promotion or rollback; -1 when there was none."""
    moves = [
        record.sequence
        for record in records
        if record.event in ("promotion.recorded", "rollback.recorded")
        and record.product == product
        and record.body["environment"] == environment
    ]
    return moves[-1] if moves else -1
