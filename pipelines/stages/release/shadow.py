"""Switch shadowing on and off: a record in the audit log, which the gateway follows from the next request on."""

from collections.abc import Mapping

from pydantic import JsonValue

from data_contracts.chain import AuditRecord, EventKind
from data_contracts.digests import Digest
from data_contracts.errors import BadInput, Refused
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.serve.answer import target
from pipelines.stages.serve.reconcile import reconcile
from pipelines.stages.serve.routes import may_shadow, shadow_of


def begin_shadow(parts: Parts, product: Product, release: Digest, share: float, actor: str) -> AuditRecord:
    """Ask this release this share of the live requests again, in place of any other. Raises `Refused` for one that is
    not approved, or live, or that this server cannot load."""
    if not 0 < share <= 1:
        raise BadInput(f"the share {share:g} is none: give one above 0, up to 1 for every request")
    with parts.locks.hold(f"live-{product.name}"):
        if not may_shadow(parts.log.records(), product.name, release):
            raise Refused(
                f"{release} cannot be a shadow of {product.name}: it is live, or not approved now; `assay releases` "
                "tells, `assay approve` signs it"
            )
        goal = target(parts, product, release, "challenger")
        parts.server.ensure_loaded(goal.adapter or release)
        record = _chain(parts, product, "shadow.begun", {"release": release, "share": share}, actor)
    reconcile(parts, [product])
    return record


def end_shadow(parts: Parts, product: Product, actor: str) -> AuditRecord:
    """Raises `Refused` where nothing is mirrored."""
    with parts.locks.hold(f"live-{product.name}"):
        release, _ = shadow_of(parts.log.records(), product.name, product.environment)
        if release is None:
            raise Refused(f"{product.name} has no shadow: there is nothing to switch off")
        record = _chain(parts, product, "shadow.ended", {"release": release}, actor)
    reconcile(parts, [product])
    return record


def _chain(parts: Parts, product: Product, event: EventKind, body: Mapping[str, JsonValue], actor: str) -> AuditRecord:
    return parts.log.append(event, product.name, {"environment": product.environment, **body}, actor)
