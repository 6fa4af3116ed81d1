"""The switch for incidents: while one is open, nothing is trained by itself. Its state is what the audit log says."""

from collections.abc import Sequence

from data_contracts.chain import ALL, AuditRecord
from data_contracts.errors import Refused
from pipelines.stages.protocols import Parts


def open_incidents(log: Sequence[AuditRecord]) -> dict[str, AuditRecord]:
    """By product, or `ALL`, the record that opened it."""
    found: dict[str, AuditRecord] = {}
    for record in log:
        if record.event == "incident.opened":
            found[record.product] = record
        elif record.event == "incident.closed":
            found.pop(record.product, None)
    return found


def incident_of(log: Sequence[AuditRecord], product: str) -> AuditRecord | None:
    """The one that holds this product."""
    found = open_incidents(log)
    return found.get(product) or found.get(ALL)


def open_incident(parts: Parts, product: str, reason: str, actor: str) -> AuditRecord:
    """Raises `Refused` where one is open already."""
    with parts.locks.hold("incidents"):
        if before := open_incidents(parts.log.records()).get(product):
            raise Refused(f"an incident of {told(product)} is open already (record {before.sequence}): close it first")
        return parts.log.append("incident.opened", product, {"reason": reason}, actor=actor)


def close_incident(parts: Parts, product: str, reason: str, actor: str) -> AuditRecord:
    """Raises `Refused` where none is open."""
    with parts.locks.hold("incidents"):
        if product not in (found := open_incidents(parts.log.records())):
            others = f"; open are those of {', '.join(map(told, sorted(found)))}" if found else ""
            raise Refused(f"no incident of {told(product)} is open{others}")
        opened = found[product].digest
        return parts.log.append("incident.closed", product, {"reason": reason, "opened": opened}, actor=actor)


def told(product: str) -> str:
    return "all products" if product == ALL else product
