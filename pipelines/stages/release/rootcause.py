"""After a rollback nothing is approved until somebody signs why it was needed: else the next candidate brings it
back."""

from data_contracts.chain import ROOT_CAUSE_NAMESPACE, AuditRecord
from data_contracts.digests import canonical_json
from data_contracts.errors import BadInput, Refused
from data_contracts.lifecycle import follow
from data_contracts.rollbacks import Category, RootCause, RootCauseStatement
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.release.signed import check_signed, only_principal


def statement_for(parts: Parts, product: Product, category: Category, text: str) -> RootCauseStatement:
    """What to sign about the rollback that still waits for its cause. Raises `Refused` when none does."""
    locked_by = _locked_by(parts, product)
    if locked_by is None:
        raise Refused(f"{product.name} waits for no root cause: it was not rolled back, or the cause is filed")
    if len(text.strip()) < 10:
        raise BadInput("say in a sentence what caused the rollback (--text)")
    return RootCauseStatement(
        product=product.name,
        environment=product.environment,
        rollback=locked_by.digest,
        category=category,
        text=text.strip(),
    )


def message(statement: RootCauseStatement) -> bytes:
    """The bytes under the signature (namespace ``assay-root-cause-v1``): the statement's canonical JSON."""
    return canonical_json(statement.payload())


def file(
    parts: Parts, product: Product, statement: RootCauseStatement, signature: str, principal: str = ""
) -> AuditRecord:
    """Chain a signed cause, which opens the product for approvals. ``principal`` may be left out when the key has one
    name only. Raises `Refused`."""
    signed = message(statement)
    principal = principal or only_principal(parts.signatures, ROOT_CAUSE_NAMESPACE, signed, signature)
    check_signed(parts.signatures, "a root cause", ROOT_CAUSE_NAMESPACE, signed, signature, principal)
    with parts.locks.hold(f"live-{product.name}"):
        locked_by = _locked_by(parts, product)
        if locked_by is None or statement.rollback != locked_by.digest:
            raise Refused(f"the statement is of rollback {statement.rollback}, which waits for no root cause")
        cause = RootCause(statement=statement, principal=principal, signature=signature)
        body = {
            "environment": product.environment,
            "rollback": statement.rollback,
            "cause": parts.store.put_manifest(cause),
            "category": statement.category,
            "text": statement.text,
        }
        return parts.log.append("root-cause.filed", product.name, body, actor=principal)


def check_unlocked(parts: Parts, product: Product) -> None:
    """Raises `Refused` while a rollback of the product waits for its root cause."""
    if (record := _locked_by(parts, product)) is not None:
        raise Refused(
            f"{product.name} was rolled back (audit record {record.sequence}: {record.body['reason']}), and approvals "
            f"wait for the root cause: assay root-cause {product.name} --category data --text '...' --key KEY"
        )


def _locked_by(parts: Parts, product: Product) -> AuditRecord | None:
    records = parts.log.records()
    sequence = follow(records).locked.get((product.name, product.environment))
    return None if sequence is None else records[sequence]
