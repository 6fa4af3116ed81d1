"""Go back one step: to what was live before the champion, past anything that was rolled back, at last to the base."""

from pydantic import JsonValue

from data_contracts.chain import AuditRecord, live_stack
from data_contracts.errors import BadInput, Refused
from data_contracts.manifests import ReleaseManifest
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.serve.reconcile import reconcile


def rollback(parts: Parts, product: Product, reason: str, actor: str) -> AuditRecord:
    """Chain the rollback, then make the projections follow. Needs no approval: it leads to what was approved before.

    The approvals of the release that is left are spent: it needs new ones to come back.
    """
    if not reason.strip():
        raise BadInput("a rollback needs a reason: it stays in the audit log")
    with parts.locks.hold(f"live-{product.name}"):
        stack = live_stack(parts.log.records(), product.name, product.environment)
        if len(stack) == 1:
            raise Refused(f"nothing to roll back: the base model answers for {product.name}")
        previous, live = stack[-2], stack[-1]
        if previous is not None:
            parts.store.get_manifest(previous, ReleaseManifest)
        body: dict[str, JsonValue] = {
            "environment": product.environment,
            "release": previous,
            "from": live,
            "reason": reason,
        }
        record = parts.log.append("rollback.recorded", product.name, body, actor)
    reconcile(parts, [product])
    return record
