"""Approvals: statements that a reviewer signs with an SSH key, checked against the store and counted in the audit log.

A statement is derived, never typed; a submitted approval lies in an inbox until it is accepted into the log.
"""

import secrets
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from data_contracts.chain import APPROVAL_NAMESPACE, AuditRecord, EventKind
from data_contracts.digests import Digest, canonical_json
from data_contracts.errors import Refused
from data_contracts.verdicts import Approval, ApprovalStatement
from pipelines.recipes.product import Product
from pipelines.stages import inbox
from pipelines.stages.protocols import Parts, Signatures
from pipelines.stages.release.ballot import decided, rejections
from pipelines.stages.release.evidence import examine, facts
from pipelines.stages.release.rootcause import check_unlocked
from pipelines.stages.release.signed import check_signed, only_principal
from pipelines.stages.release.spotcheck import check_spot_checks

_EVENTS: dict[str, EventKind] = {"approve": "approval.accepted", "reject": "approval.rejected"}


def statement_for(
    parts: Parts, product: Product, release: Digest, decision: Literal["approve", "reject"], expires: datetime
) -> ApprovalStatement:
    """What to sign for this release as it is now, with a fresh nonce. Refuses what could not be accepted."""
    manifest, _ = examine(parts, product, release)
    if decision == "approve":
        check_unlocked(parts, product)
    _check_expiry(product, expires, datetime.now(UTC))
    return ApprovalStatement(decision=decision, nonce=secrets.token_hex(16), expires=expires, **facts(manifest))


def message(statement: ApprovalStatement) -> bytes:
    """The bytes under the signature (namespace ``assay-approval-v1``): the statement's canonical JSON."""
    return canonical_json(statement.payload())


def submit(
    parts: Parts, release: Digest, statement: ApprovalStatement, signature: str, principal: str = "", reason: str = ""
) -> Path:
    """Lay a signed approval into the inbox. ``principal`` may be left out when the key has one name only."""
    principal = principal or only_principal(parts.signatures, APPROVAL_NAMESPACE, message(statement), signature)
    approval = Approval(release=release, statement=statement, principal=principal, signature=signature, reason=reason)
    check_signature(parts.signatures, approval)
    return inbox.submit(_inbox(parts), approval)


def pending(parts: Parts) -> list[Approval]:
    """Submitted approvals that were neither accepted nor refused yet, oldest first. Unreadable ones are set aside."""
    found: list[Approval] = []
    for path in inbox.waiting(_inbox(parts)):
        try:
            approval = Approval.model_validate_json(path.read_bytes())
        except ValidationError:
            _set_aside(parts, path, "not an approval: the file cannot be read as one")
            continue
        path.replace(_in_inbox(parts, approval))  # one that was copied here under another name
        found.append(approval)
    return found


def submitted(parts: Parts) -> list[Approval]:
    """What lies in the inbox, for a look: nothing is checked or moved, what cannot be read is left out."""
    return list(_read(_inbox(parts)).values())


def set_aside(parts: Parts) -> list[tuple[Approval, str]]:
    """Submitted approvals that were refused, each with its reason."""
    folder = _refused(parts)
    return [(each, (folder / f"{name}.reason.txt").read_text().strip()) for name, each in _read(folder).items()]


def accept(parts: Parts, product: Product, approval: Approval) -> AuditRecord:
    """Chain an approval or a rejection after checking all of it again. Raises `Refused` with the reason.

    One that is in the log already is not chained twice: while it still counts, its record is returned.
    """
    with parts.locks.hold(f"approval-{product.name}"):
        try:
            record = _accept(parts, product, approval)
        except Refused as refusal:
            _set_aside(parts, _in_inbox(parts, approval), str(refusal))
            raise
        _in_inbox(parts, approval).unlink(missing_ok=True)
        return record


def check_signature(signatures: Signatures, approval: Approval) -> str:
    """The public key that signed, when it may sign as this principal. Raises `Refused` saying why not."""
    signed = message(approval.statement)
    return check_signed(signatures, "an approval", APPROVAL_NAMESPACE, signed, approval.signature, approval.principal)


def check_statement(approval: Approval, expected: dict[str, object]) -> None:
    """Raises `Refused` naming the fields in which the statement differs from the release."""
    signed = approval.statement.payload()
    wrong = sorted(field for field, value in expected.items() if signed[field] != value)
    if wrong:
        shown = "; ".join(f"{field} {signed[field]}, the release has {expected[field]}" for field in wrong)
        raise Refused(f"the approval is for something else than release {approval.release}: {shown}")


def _accept(parts: Parts, product: Product, approval: Approval) -> AuditRecord:
    statement = approval.statement
    key = check_signature(parts.signatures, approval)
    release, records = examine(parts, product, approval.release)
    check_statement(approval, facts(release))
    used = _record_of_nonce(records, statement.nonce)
    if used is not None:
        if used.body["approval"] == approval.digest and used in decided(records, release):
            return used
        raise Refused(f"replayed: nonce {statement.nonce} was used in audit record {used.sequence}")
    _check_expiry(product, statement.expires, datetime.now(UTC))
    _check_order(parts, approval, decided(records, release))
    if statement.decision == "approve":
        product.approval.check_may_approve(approval.principal)
        check_unlocked(parts, product)
        check_spot_checks(parts.store, parts.signatures, release, records)
        for record in rejections(records, release):
            if record.body["principal"] != approval.principal:
                raise Refused(f"{record.body['principal']} rejected this release: {record.body['reason']}")
    elif not approval.reason:
        raise Refused("a rejection needs a reason")
    body = {
        "release": approval.release,
        "approval": parts.store.put_manifest(approval),
        "environment": statement.environment,
        "principal": approval.principal,
        "key": key,
        "nonce": statement.nonce,
        "reason": approval.reason,
    }
    return parts.log.append(_EVENTS[statement.decision], product.name, body, actor=approval.principal)


def _check_expiry(product: Product, expires: datetime, now: datetime) -> None:
    if expires <= now:
        raise Refused(f"expired: the approval was good until {expires.isoformat()}; sign again")
    if expires > now + timedelta(hours=product.approval.expires_hours):
        raise Refused(
            f"the approval would be good until {expires.isoformat()}: product {product.name} allows "
            f"{product.approval.expires_hours:g} hours"
        )


def _check_order(parts: Parts, approval: Approval, earlier: Sequence[AuditRecord]) -> None:
    """A reviewer's decision is replaced only by a later one, told by when it expires: an old approval that turns up
    after a rejection does not undo it."""
    for record in earlier:
        if record.body["principal"] == approval.principal:
            expires = parts.store.get_manifest(str(record.body["approval"]), Approval).statement.expires
            if expires >= approval.statement.expires:
                raise Refused(
                    f"{approval.principal} decided later than this (audit record {record.sequence}); to change that "
                    "decision, sign one that expires later"
                )


def _record_of_nonce(records: Sequence[AuditRecord], nonce: str) -> AuditRecord | None:
    return next((r for r in records if r.event in _EVENTS.values() and r.body["nonce"] == nonce), None)


def _inbox(parts: Parts) -> Path:
    return parts.home / "approvals" / "inbox"


def _refused(parts: Parts) -> Path:
    return parts.home / "approvals" / "refused"


def _read(folder: Path) -> dict[str, Approval]:
    """File name without its suffix -> approval. One that is taken away meanwhile is left out."""
    found: dict[str, Approval] = {}
    for path in sorted(folder.glob("*.json")):
        with suppress(FileNotFoundError, ValidationError):
            found[path.stem] = Approval.model_validate_json(path.read_bytes())
    return found


def _in_inbox(parts: Parts, approval: Approval) -> Path:
    return inbox.place(_inbox(parts), approval)


def _set_aside(parts: Parts, path: Path, reason: str) -> None:
    """Out of the inbox, with the reason beside it."""
    if path.exists():
        refused = _refused(parts)
        refused.mkdir(parents=True, exist_ok=True)
        (refused / f"{path.stem}.reason.txt").write_text(reason + "\n")
        path.replace(refused / path.name)
