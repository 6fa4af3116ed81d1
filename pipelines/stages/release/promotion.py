"""Promote an approved release: verify all again, serve it as challenger, run the canary, record, then project.

The promotion record in the audit log is the act; loaded adapters, registry alias and routes follow it. A crash before
the record leaves the champion as it was, a crash after it is made up for by doing the same again.
"""

import logging
from collections.abc import Sequence

from pydantic import JsonValue

from data_contracts.chain import AuditRecord, live_stack
from data_contracts.digests import Digest
from data_contracts.errors import Refused
from data_contracts.lifecycle import follow
from data_contracts.manifests import BaseManifest, ReleaseManifest
from data_contracts.verdicts import CanaryVerdict
from evals.suite import CallItem
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.release import canary
from pipelines.stages.release.attestation import check_attestation
from pipelines.stages.release.ballot import last_move
from pipelines.stages.release.evidence import check_model, check_weights, examine
from pipelines.stages.release.quorum import sufficient
from pipelines.stages.release.rollout import Tell, roll_out
from pipelines.stages.serve.reconcile import reconcile
from pipelines.stages.serve.routes import challenging

log = logging.getLogger(__name__)


def promote(
    parts: Parts,
    product: Product,
    digest: Digest,
    ask: canary.Ask,
    prompts: Sequence[CallItem] | None = None,
    tell: Tell = log.info,
) -> AuditRecord:
    """Make a release the champion; the audit record that did it. Raises `Refused` with the reason otherwise.

    For a release that is live already only the projections are made again. ``tell`` hears how a canary goes.
    """
    records = parts.log.records()
    moved = last_move(records, product.name, product.environment)
    if live_stack(records, product.name, product.environment)[-1] == digest:
        reconcile(parts, [product])
        return records[moved]
    release = _qualified(parts, product, digest)[0]
    _serve(parts, release)
    with challenging(parts, product, digest):
        verdict = canary.run(ask, product, release, prompts or canary.canary_prompts(product))
        rollout = product.serving.canary.rollout
        if verdict.outcome == "pass" and rollout is not None:
            verdict = roll_out(parts, product, release, rollout, verdict, tell)
    _record_canary(parts, verdict)
    if verdict.outcome == "fail":
        raise Refused(f"the canary failed: {verdict.reason}; the champion stays")
    with parts.locks.hold(f"live-{product.name}"), parts.locks.hold(f"approval-{product.name}"):
        release, approved = _qualified(parts, product, digest)
        body: dict[str, JsonValue] = {
            "environment": release.environment,
            "release": digest,
            "displaced": release.displaced_champion,
            "weights": release.weights,
            "base": release.base,
            "approvals": [record.body["approval"] for record in approved],
            "canary": verdict.digest,
        }
        record = parts.log.append("promotion.recorded", product.name, body, actor="promotion")
    reconcile(parts, [product])
    return record


def _qualified(parts: Parts, product: Product, digest: Digest) -> tuple[ReleaseManifest, list[AuditRecord]]:
    """Everything that must hold, read again: evidence, champion, approvals, weights."""
    release, records = examine(parts, product, digest)
    approved = sufficient(parts.store, parts.signatures, release, records, product.approval)
    if why := follow(records).refusal("promotion.recorded", digest):
        raise Refused(why)
    check_attestation(parts, release, records)
    check_weights(parts.store, check_model(parts.store, release))
    return release, approved


def _serve(parts: Parts, release: ReleaseManifest) -> None:
    parts.server.ensure_running(parts.store.get_manifest(release.base, BaseManifest))
    parts.server.ensure_loaded(release.weights)


def _record_canary(parts: Parts, verdict: CanaryVerdict) -> None:
    body: dict[str, JsonValue] = {
        "release": verdict.release,
        "canary": parts.store.put_manifest(verdict),
        "outcome": verdict.outcome,
        "reason": verdict.reason,
    }
    parts.log.append("canary.recorded", verdict.product, body, actor="promotion")
