"""Enough approvals: those that the audit log counts, each with its signature, statement and expiry checked again."""

from collections.abc import Sequence

from data_contracts.chain import AuditRecord
from data_contracts.errors import Refused
from data_contracts.manifests import ReleaseManifest
from data_contracts.store import ArtifactStore
from data_contracts.verdicts import Approval
from pipelines.recipes.approvals import ApprovalRule
from pipelines.stages.protocols import Signatures
from pipelines.stages.release.approval import check_signature, check_statement
from pipelines.stages.release.ballot import approvals, rejections
from pipelines.stages.release.evidence import facts
from pipelines.stages.release.spotcheck import check_spot_checks


def sufficient(
    store: ArtifactStore,
    signatures: Signatures,
    release: ReleaseManifest,
    records: Sequence[AuditRecord],
    rule: ApprovalRule,
) -> list[AuditRecord]:
    """The approvals of this release that count at the end of these records, each checked again.

    Raises `Refused` when a reviewer rejected it, fewer approved than the rule asks for, or spot checks are missing.
    """
    for record in rejections(records, release):
        raise Refused(f"{record.body['principal']} rejected this release: {record.body['reason']}")
    check_spot_checks(store, signatures, release, records)
    counted, void = count(store, signatures, release, records, rule)
    if lacking := rule.missing(names(counted)):
        why = "; ".join(f"record {each}: {reason}" for each, reason in void.items()) or "sign with `assay approve`"
        raise Refused(f"{', '.join(lacking)} for release {release.digest} ({why})")
    return counted


def count(
    store: ArtifactStore,
    signatures: Signatures,
    release: ReleaseManifest,
    records: Sequence[AuditRecord],
    rule: ApprovalRule,
) -> tuple[list[AuditRecord], dict[int, str]]:
    """The standing approvals that pass every check, and the sequence of each other one with why it does not count."""
    counted: list[AuditRecord] = []
    void: dict[int, str] = {}
    for record in approvals(records, release):
        try:
            rule.check_may_approve(str(record.body["principal"]))
            _check_approval(store, signatures, release, record)
            counted.append(record)
        except Refused as refusal:
            void[record.sequence] = str(refusal)
    return counted, void


def names(approved: Sequence[AuditRecord]) -> list[str]:
    return [str(record.body["principal"]) for record in approved]


def _check_approval(
    store: ArtifactStore, signatures: Signatures, release: ReleaseManifest, record: AuditRecord
) -> None:
    approval = store.get_manifest(str(record.body["approval"]), Approval)
    key = check_signature(signatures, approval)
    check_statement(approval, facts(release))
    statement = approval.statement
    if (key, approval.principal, statement.nonce, approval.release, statement.decision) != (
        record.body["key"],
        record.body["principal"],
        record.body["nonce"],
        record.body["release"],
        "approve",
    ):
        raise Refused("the audit record and the approval that it names differ")
    if record.time > statement.expires:
        raise Refused(f"expired before it was chained (good until {statement.expires.isoformat()})")
