"""Go back one step: to what was live before the champion, past anything that was rolled back, at last to the base."""

from datetime import UTC, datetime

from pydantic import JsonValue

from data_contracts.chain import AuditRecord
from data_contracts.errors import BadInput, Refused
from data_contracts.lifecycle import follow
from data_contracts.manifests import ReleaseManifest
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.serve.reconcile import reconcile


def rollback(parts: Parts, product: Product, reason: str, actor: str, now: datetime | None = None) -> AuditRecord:
    """Chain the rollback, then make the projections follow. Needs no approval: it leads to what was approved before,
    past releases whose sunset has come, and those that were shredded.

    The approvals of the release that is left are spent: it needs new ones to come back.
    """
    if not reason.strip():
        raise BadInput("a rollback needs a reason: it stays in the audit log")
    with parts.locks.hold(f"live-{product.name}"):
        course = follow(parts.log.records())
        *below, live = course.stacks.get((product.name, product.environment), [None])
        if not below:
            raise Refused(f"nothing to roll back: the base model answers for {product.name}")
        ended = course.ended(now or datetime.now(UTC)) | {d for d, each in course.standings.items() if each.shredded}
        previous = next(release for release in reversed(below) if release not in ended)
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
