"""The last links: approvals, canary and promotion as the audit log has them, and the route table against the log."""

from collections.abc import Sequence

from data_contracts.chain import AuditRecord, live_releases, live_stack, revoked_releases
from data_contracts.errors import Refused
from data_contracts.lifecycle import follow
from data_contracts.manifests import ReleaseManifest
from data_contracts.verdicts import CanaryVerdict
from pipelines.stages.protocols import Parts, Signatures
from pipelines.stages.release.quorum import names, sufficient
from pipelines.stages.release.terms import approval_rule
from pipelines.stages.release.walk import Walk
from pipelines.stages.serve.routes import read_routes


def walk_live(
    walk: Walk, parts: Parts, release: ReleaseManifest, records: Sequence[AuditRecord], signatures: Signatures
) -> None:
    """Add the links of each promotion of this release, judged by the log as it was then, and the routes of now."""
    promotions = [r for r in records if r.event == "promotion.recorded" and r.body["release"] == release.digest]
    for record in promotions:
        _walk_promotion(walk, parts, release, record, records[: record.sequence], signatures)
    if not promotions:
        walk.step("promotion", lambda: (None, "never promoted"))
    walk.step("lifecycle", lambda: _lifecycle(release, records))
    revoked = revoked_releases(records).get(release.digest)
    if revoked is not None:
        walk.step("revocation", lambda: (None, f"audit record {revoked.sequence}: may not be served any more"))
    walk.step("routes", lambda: _routes(parts, release, records))


def _walk_promotion(
    walk: Walk,
    parts: Parts,
    release: ReleaseManifest,
    record: AuditRecord,
    before: Sequence[AuditRecord],
    signatures: Signatures,
) -> None:
    walk.step("approvals", lambda: _approvals(parts, release, record, before, signatures))
    walk.step("canary", lambda: _canary(parts, release, record, before))
    walk.step("promotion", lambda: _promotion(release, record, before))


def _approvals(
    parts: Parts,
    release: ReleaseManifest,
    record: AuditRecord,
    before: Sequence[AuditRecord],
    signatures: Signatures,
) -> tuple[None, str]:
    rule = approval_rule(parts.store, release)
    counted = sufficient(parts.store, signatures, release, before, rule)
    if [each.body["approval"] for each in counted] != record.body["approvals"]:
        raise Refused(f"the promotion (audit record {record.sequence}) names other approvals than those that count")
    signed = f"{len(counted)} of {rule.needed} signed by {', '.join(names(counted))}"
    return None, f"{signed}, each over this very release"


def _canary(
    parts: Parts, release: ReleaseManifest, record: AuditRecord, before: Sequence[AuditRecord]
) -> tuple[None, str]:
    digest = str(record.body["canary"])
    verdict = parts.store.get_manifest(digest, CanaryVerdict)
    if (verdict.release, verdict.outcome) != (release.digest, "pass"):
        raise Refused(f"the canary {digest} is of release {verdict.release}, outcome {verdict.outcome}")
    if open_ := [each.name for each in verdict.live if each.outcome not in ("within", "unseen")]:
        raise Refused(f"the canary {digest} passed, and its {open_[0]} was not shown to be within the margin")
    if not any(each.event == "canary.recorded" and each.body["canary"] == digest for each in before):
        raise Refused(f"the canary {digest} was not in the audit log before the promotion")
    return None, verdict.reason


def _promotion(release: ReleaseManifest, record: AuditRecord, before: Sequence[AuditRecord]) -> tuple[None, str]:
    live = live_stack(before, release.product, release.environment)[-1]
    recorded = [record.product, *(record.body[name] for name in ("environment", "displaced", "weights", "base"))]
    if recorded != [release.product, release.environment, live, release.weights, release.base]:
        raise Refused(f"audit record {record.sequence} does not fit the release and the champion of that time")
    if live != release.displaced_champion:
        raise Refused(f"{live or 'the base'} was champion then, not {release.displaced_champion or 'the base'}")
    return None, f"audit record {record.sequence}, after {live or 'the base'}"


def _lifecycle(release: ReleaseManifest, records: Sequence[AuditRecord]) -> tuple[None, str]:
    course = follow(records)
    for sequence, why in course.wrong.items():
        if records[sequence].body.get("release") == release.digest:
            raise Refused(f"audit record {sequence} is no legal move: {why}")
    standing = course.standings[release.digest]
    until = f", answers until {standing.sunset}" if standing.state == "deprecated" else ""
    return None, f"{standing.state} since audit record {standing.since}{until}"


def _routes(parts: Parts, release: ReleaseManifest, records: Sequence[AuditRecord]) -> tuple[None, str]:
    live = live_releases(records).get((release.product, release.environment))
    route = read_routes(parts.home).of(release.product)
    routed = None if route is None else route.champion
    if routed != live:
        raise Refused(f"the route table names {routed or 'the base'} as champion, the log {live or 'the base'}")
    return None, f"{live or 'the base'} is champion, as the audit log says"
