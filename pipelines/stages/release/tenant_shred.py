"""Crypto-shred of a tenant: its key is destroyed, and with it whatever was sealed for it, here and in every copy.

The audit log says so first, so that nothing of it is routed from then on. Each step can be done again: killed between
two, the same command finishes.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pydantic import JsonValue

from data_contracts.chain import ALL, AuditRecord
from data_contracts.digests import Digest
from data_contracts.errors import AssayError, Missing, Unavailable
from data_contracts.lifecycle import follow
from data_contracts.manifests import ReleaseManifest
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.serve.reconcile import reconcile
from pipelines.stages.serve.tenants import void_keys
from pipelines.stages.train.leftovers import forget_runs, runs_of

log = logging.getLogger(__name__)


class ShreddedTenant(NamedTuple):
    """``key``: the public one. ``record``: sequence of the audit record. ``runs``: folders that were deleted."""

    key: str
    record: int
    releases: tuple[Digest, ...]
    api_keys: int
    runs: tuple[str, ...]


def shred(parts: Parts, products: Sequence[Product], tenant: str) -> ShreddedTenant:
    """Raises `Missing` for a tenant without releases and products, `Unavailable` where a training goes on writing."""
    with parts.locks.hold(f"tenant-{tenant}"):
        records = parts.log.records()
        releases = _releases(parts, records, tenant)
        names = {each.name for each in products if each.tenant == tenant}
        names |= {parts.store.get_manifest(release, ReleaseManifest).product for release in releases}
        if not names:
            raise Missing(f"tenant {tenant} has no product and no release: check the name; nothing was done")
        weights = _weights(records, names)
        for each in weights:  # of an earlier edition, which sealed nothing
            parts.store.seal(each, tenant)
        chained = _chained(parts, records, tenant, releases)
        parts.tenant_keys.destroy(tenant)
        api_keys = void_keys(parts.home, tenant)
        _unload(parts, weights)
        _reconcile(parts, [each for each in products if each.name in names])
        runs = runs_of(parts.home / "training", parts.checkpoints, names)
        forget_runs(lambda: runs_of(parts.home / "training", parts.checkpoints, names))
        parts.store.sweep()
    return ShreddedTenant(str(chained.body["key"]), chained.sequence, tuple(releases), api_keys, tuple(runs))


def _releases(parts: Parts, records: Sequence[AuditRecord], tenant: str) -> list[Digest]:
    found = follow(records).standings
    return [each for each in found if parts.store.get_manifest(each, ReleaseManifest).tenant == tenant]


def _weights(records: Iterable[AuditRecord], products: set[str]) -> list[Digest]:
    """Of every checkpoint, whether it became a release or not."""
    found = (r for r in records if r.event == "checkpoint.recorded" and r.product in products)
    return sorted({str(record.body["weights"]) for record in found if "weights" in record.body})


def _chained(parts: Parts, records: Sequence[AuditRecord], tenant: str, releases: list[Digest]) -> AuditRecord:
    """The record of this shred: that of one which was cut short, or a new one."""
    for record in reversed(records):
        if record.event == "tenant.restored" and record.body["tenant"] == tenant:
            break
        if record.event == "tenant.shredded" and record.body["tenant"] == tenant:
            return record
    key = parts.tenant_keys.public(tenant)
    body: dict[str, JsonValue] = {"tenant": tenant, "key": key, "releases": [*releases]}
    return parts.log.append("tenant.shredded", ALL, body, actor="cli")


def _unload(parts: Parts, weights: Iterable[Digest]) -> None:
    try:
        for each in weights:
            parts.server.unload(each)
    except Unavailable as error:
        log.info("no server holds the adapters: %s", error)


def _reconcile(parts: Parts, products: Sequence[Product]) -> None:
    try:
        reconcile(parts, products)
    except AssayError as error:
        log.warning("the reconciler goes on trying: %s", error)
