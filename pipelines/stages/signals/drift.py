"""Has traffic drifted from the live release's first window? Population stability index, sustained over windows."""

from collections.abc import Mapping
from math import log
from typing import get_args

from data_contracts.digests import Digest
from data_contracts.frozen import Frozen
from pipelines.stages.protocols import Parts
from pipelines.stages.signals.policy import SignalPolicy
from pipelines.stages.signals.traces import Feature, Traffic, Window

FEATURES: tuple[Feature, ...] = get_args(Feature)


class FeatureDrift(Frozen):
    """PSI of each current window against the reference, oldest first; ``sustained`` is the policy's answer."""

    feature: Feature
    psi: tuple[float, ...]
    sustained: bool


class DriftReport(Frozen):
    product: str
    release: Digest | None
    traffic: Digest
    policy: Digest
    features: tuple[FeatureDrift, ...]
    drifted: bool
    reason: str


def psi(reference: Mapping[str, int], current: Mapping[str, int]) -> float:
    """Population stability index: sum over categories of (q - p) ln(q / p), p and q the shares before and now.

    0.5 is added to each count (Jeffreys), so that a category seen on one side only stays finite. Symmetric, >= 0.
    """
    categories = sorted(set(reference) | set(current))
    p_total = sum(reference.values()) + 0.5 * len(categories)
    q_total = sum(current.values()) + 0.5 * len(categories)
    total = 0.0
    for category in categories:
        p = (reference.get(category, 0) + 0.5) / p_total
        q = (current.get(category, 0) + 0.5) / q_total
        total += (q - p) * log(q / p)
    return total


def measure(traffic: Traffic, policy: SignalPolicy) -> DriftReport:
    reference = traffic.reference
    features = tuple(_feature(name, reference, traffic, policy) for name in FEATURES) if reference else ()
    drifted = [feature.feature for feature in features if feature.sustained]
    return DriftReport(
        product=traffic.product,
        release=traffic.release,
        traffic=traffic.digest,
        policy=policy.digest,
        features=features,
        drifted=bool(drifted),
        reason=_reason(traffic, drifted, policy),
    )


def record(parts: Parts, report: DriftReport) -> bool:
    """Store the report and chain it, unless the newest drift record of the product is this very report."""
    parts.store.put_manifest(report)
    if _newest(parts, report.product) == report:
        return False
    body = {"report": report.digest, "release": report.release, "drifted": report.drifted, "reason": report.reason}
    parts.log.append("drift.recorded", report.product, body, actor="signals")
    return True


def is_recorded(parts: Parts, traffic: Traffic) -> bool:
    """Whether the newest drift record of the product is about this very traffic."""
    newest = _newest(parts, traffic.product)
    return newest is not None and newest.traffic == traffic.digest


def _newest(parts: Parts, product: str) -> DriftReport | None:
    for event in reversed(parts.log.records()):
        if event.event == "drift.recorded" and event.product == product:
            return parts.store.get_manifest(str(event.body["report"]), DriftReport)
    return None


def _feature(feature: Feature, reference: Window, traffic: Traffic, policy: SignalPolicy) -> FeatureDrift:
    scores = tuple(round(psi(reference.counts[feature], now.counts[feature]), 4) for now in traffic.current)
    over = sum(score >= policy.psi for score in scores)
    return FeatureDrift(feature=feature, psi=scores, sustained=over >= policy.sustained)


def _reason(traffic: Traffic, drifted: list[Feature], policy: SignalPolicy) -> str:
    if traffic.release is None:
        return "no release is live: the base answers"
    if traffic.reference is None:
        return f"the live release has answered fewer than {policy.window} requests: no reference yet"
    if len(traffic.current) < policy.sustained:
        return f"{len(traffic.current)} whole windows since the reference, {policy.sustained} are needed"
    if drifted:
        return f"{', '.join(drifted)}: PSI of {policy.psi} or more in {policy.sustained} of {policy.windows} windows"
    return f"no feature reached PSI {policy.psi} in {policy.sustained} of {policy.windows} windows"
