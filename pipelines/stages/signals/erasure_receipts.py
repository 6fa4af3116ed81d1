"""Are the receipts of erasures genuine, and does what they prove still hold?"""

from typing import Literal

from data_contracts.chain import AuditRecord, revoked_releases
from data_contracts.digests import Digest
from data_contracts.errors import Refused
from data_contracts.frozen import Frozen
from data_contracts.verdicts import ErasureReceipt
from pipelines.stages.protocols import Parts
from pipelines.stages.release.audit import LogKeys, check_head, check_log, log_keys
from pipelines.stages.signals.erasure_queue import waiting


class Erasure(Frozen):
    subject: str
    state: Literal["erased", "waiting"]
    receipt: Digest | None
    detail: str


def listed(parts: Parts) -> list[Erasure]:
    """Erasures with their receipts, oldest first, then those that wait. Raises `Refused`, `Tampered` or `ChainBroken`
    naming a receipt that is not what was chained, or content that came back."""
    records = check_log(parts.log, parts.signatures)
    keys = log_keys(records, parts.signatures)
    done = [_checked(parts, records, keys, record) for record in records if record.event == "erasure.completed"]
    erased = {each.subject for each in done}
    todo = [each for each in waiting(parts) if each.subject not in erased]
    return [*done, *(Erasure(subject=e.subject, state="waiting", receipt=None, detail=e.reason) for e in todo)]


def _checked(parts: Parts, records: list[AuditRecord], keys: LogKeys, record: AuditRecord) -> Erasure:
    digest = str(record.body["receipt"])
    receipt = parts.store.get_manifest(digest, ErasureReceipt)
    check_head(records, keys, receipt.log_head, parts.signatures)
    begun = next(r for r in records if r.event == "erasure.begun" and r.body["subject"] == record.body["subject"])
    stated = (receipt.subject, receipt.begun, begun.sequence <= receipt.log_head.sequence < record.sequence)
    if stated != (record.body["subject"], begun.digest, True):
        raise Refused(f"receipt {digest} is not the one that audit record {record.sequence} was chained for")
    if parts.datasets.held([receipt.subject]).content or not parts.keyring.erased([receipt.subject]):
        raise Refused(f"content or key of subject {receipt.subject} is there again, after receipt {digest}")
    if missing := set(receipt.releases) - revoked_releases(records).keys():
        raise Refused(f"receipt {digest} says that {sorted(missing)[0]} was revoked: the audit log does not")
    return Erasure(
        subject=receipt.subject,
        state="erased",
        receipt=digest,
        detail=f"audit record {record.sequence}, signed; {len(receipt.rows)} rows, {len(receipt.releases)} releases",
    )
