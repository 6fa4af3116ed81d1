"""One report over all meters: what left the live release's first window, and lasts."""

from collections.abc import Sequence
from datetime import datetime

from pydantic import Field, JsonValue

from data_contracts.digests import Digest
from data_contracts.frozen import Frozen
from pipelines.stages.protocols import Parts
from pipelines.stages.signals.costs import Prices
from pipelines.stages.signals.judged import Judged
from pipelines.stages.signals.meters import History, MeterWindow, bar, history
from pipelines.stages.signals.policy import AlertKind, MeterRule, Method, SignalPolicy
from pipelines.stages.signals.traces import Traffic, Window

SHOWN = 12
"""Newest windows that a report repeats of each meter; all of them are in the store."""


class FeatureDrift(Frozen):
    """What one meter says. ``windows``: the newest, oldest first; ``threshold``: what the score of one must reach to be
    over; ``rise``: the CUSUM now, ``rises``: from where on it counts. ``counted``: what a rate is of, where its name
    does not say. ``silent``: why it says nothing; ``untrusted``: why what it says does not count. ``sustained``: the
    policy's answer."""

    feature: str
    method: Method
    sustained: bool
    threshold: float
    reference: float | None = None
    windows: tuple[MeterWindow, ...] = ()
    rise: float | None = None
    rises: float | None = None
    counted: str = ""
    alert: AlertKind = "drift"
    silent: str = ""
    untrusted: str = Field(default="", exclude_if=lambda why: not why)

    @property
    def reading(self) -> str:
        """Of the newest window, and of the reference where that is a number of the same kind."""
        against = f"; untrusted: {self.untrusted}" if self.untrusted else ""
        if not self.windows:
            return self.silent + against
        rose = self.rise is not None and self.rises is not None and self.rise >= self.rises
        slowly = f"; slow rise {self.rise:.1f} of {self.rises:g}" if rose else ""
        same = self.reference is not None and self.method in ("rate", "slowest", "growth")
        before = f", was {_shown(self.method, self.reference or 0)}" if same else ""
        named = f" {self.counted}" if self.counted else ""
        now = _shown(self.method, self.windows[-1].value)
        return now + named + before.replace("95 % within ", "") + slowly + against


class DriftReport(Frozen):
    """``traffic``, ``exchanges`` and ``judged`` name what was compared."""

    product: str
    release: Digest | None
    traffic: Digest
    exchanges: Digest | None = None
    judged: Digest | None = Field(default=None, exclude_if=lambda judged: judged is None)
    policy: Digest
    features: tuple[FeatureDrift, ...]
    drifted: bool
    reason: str

    @property
    def until(self) -> datetime | None:
        """The end of the newest window."""
        ends = (each.windows[-1].ends for each in self.features if each.windows)
        return max(filter(None, ends), default=None)

    @property
    def sustained(self) -> list[str]:
        return [each.feature for each in self.features if each.sustained]


def measure(
    traffic: Traffic,
    policy: SignalPolicy,
    exchanges: Traffic | None = None,
    learned: Window | None = None,
    prices: Prices | None = None,
    judged: Judged | None = None,
) -> DriftReport:
    """``exchanges``: what is kept of the answers in words, if anything; ``learned``: what the release learned from;
    ``judged``: what a judge says of answers, which counts while it is trusted."""
    read = histories(traffic, policy, exchanges, learned, prices, judged)
    features = tuple(_feature(name, policy.meters[name], found, judged) for name, found in read.items())
    lasting = [each.feature for each in features if each.sustained]
    return DriftReport(
        product=traffic.product,
        release=traffic.release,
        traffic=traffic.digest,
        exchanges=exchanges.digest if exchanges else None,
        judged=judged.digest if judged and judged.traffic else None,
        policy=policy.digest,
        features=features,
        drifted=bool(lasting),
        reason=_reason(traffic, features, policy),
    )


def histories(
    traffic: Traffic,
    policy: SignalPolicy,
    exchanges: Traffic | None = None,
    learned: Window | None = None,
    prices: Prices | None = None,
    judged: Judged | None = None,
) -> dict[str, History | str]:
    """Of each meter, in the policy's order: what it read, or why it read nothing. None before the reference is full; a
    meter of a judge is left out where there is none."""
    if traffic.reference is None:
        return {}
    found: dict[str, History | str] = {}
    sources = {"answers": traffic, "exchanges": exchanges, "judged": judged.traffic if judged else None}
    for name, rule in policy.meters.items():
        source = sources[rule.of]
        if rule.of == "judged" and source is None:
            continue
        reference = learned if rule.against == "training" else source.reference if source else None
        if source is None or source.reference is None:
            done = "judged" if rule.of == "judged" else "kept in words"
            found[name] = f"of this release fewer than {policy.exchanges} answers are {done}"
        elif reference is None:
            found[name] = "what the release learned from cannot be read"
        elif rule.against == "training" and not reference.counts.get(rule.counted or name):
            found[name] = f"the rows that the release learned from name no {rule.counted or name}"
        else:
            found[name] = history(name, rule, policy, reference, source.current, prices)
    return found


def record(parts: Parts, report: DriftReport) -> bool:
    """Store the report and chain it, unless the newest drift record of the product is this very report."""
    parts.store.put_manifest(report)
    if _newest(parts, report.product) == report:
        return False
    lasting = [each for each in report.features if each.sustained]
    kinds = {each.alert for each in lasting}
    body: dict[str, JsonValue] = {
        "report": report.digest,
        "release": report.release,
        "drifted": report.drifted,
        "reason": report.reason,
        "alerts": {kind: "; ".join(_told(each) for each in lasting if each.alert == kind) for kind in sorted(kinds)},
    }
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


def _feature(name: str, rule: MeterRule, found: History | str, judged: Judged | None) -> FeatureDrift:
    untrusted = judged.untrusted if judged and rule.of == "judged" else ""
    common = FeatureDrift(
        feature=name,
        method=rule.method,
        sustained=False,
        threshold=bar(rule),
        alert=rule.alert,
        rises=rule.rises,
        counted="" if rule.hit in ("hit", "miss") else rule.hit,
        untrusted=untrusted,
    )
    if isinstance(found, str):
        return common.model_copy(update={"silent": found})
    if not found.windows:
        return common.model_copy(update={"reference": found.reference, "silent": "no window says anything of it"})
    return common.model_copy(
        update={
            "sustained": found.lasts[-1] and not untrusted,
            "reference": found.reference,
            "windows": found.windows[-SHOWN:],
            "rise": found.rises[-1] if found.rises else None,
        }
    )


def _reason(traffic: Traffic, features: Sequence[FeatureDrift], policy: SignalPolicy) -> str:
    if traffic.release is None:
        return "no release is live: the base answers"
    if traffic.reference is None:
        return f"the live release has answered fewer than {policy.window} requests: no reference yet"
    if lasting := [each for each in features if each.sustained]:
        return "; ".join(map(_told, lasting))
    if len(traffic.current) < policy.sustained:
        return f"{len(traffic.current)} whole windows since the reference, {policy.sustained} are needed"
    return f"no meter left its reference in {policy.sustained} of {policy.windows} windows"


def _told(each: FeatureDrift) -> str:
    return f"{each.feature} ({each.reading})"


def _shown(method: Method, value: float) -> str:
    match method:
        case "shares":
            return f"PSI {value:.2f}"
        case "rate":
            return f"{100 * value:.3g} %"
        case "slowest":
            return f"95 % within {value:.0f} ms"
        case "meaning":
            return f"p {value:.2g}"
        case "unseen":
            return f"{value:.0f} never seen in training"
        case _:
            return f"{value:.4g}"
