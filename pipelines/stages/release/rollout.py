"""A canary with the traffic: the challenger answers a growing share of it, and is promoted or reverted by what is seen.

Every person counts once, with their first answer while both releases answer: heavy users, who always meet the same
release, would make the two look different where they are not. Evidence is anytime-valid (`evals.sequential`), so that
it may be looked at whenever there is more. The errors are the rule's ``alpha`` each, whatever the traffic does:

- *reverted though no worse*: any signal may revert, so each needs an e-value of (number of signals) / alpha.
- *promoted though it loses a margin*: all signals must be shown to be within theirs, so each needs 1 / alpha.
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from time import sleep
from typing import Literal, NamedTuple

from pydantic import JsonValue

from data_contracts.chain import AuditRecord
from data_contracts.digests import Digest
from data_contracts.manifests import ReleaseManifest
from data_contracts.traces import Trace
from data_contracts.verdicts import CanaryVerdict, LiveSignal
from evals.sequential import differences, log_e_no_worse, log_e_within
from pipelines.recipes.product import Product, Rollout, Signal
from pipelines.stages.protocols import Parts
from pipelines.stages.serve.routes import share_traffic

POLL_S = 5.0
LAPSE_S = 60.0
"""Traffic goes back to the champion so long after whoever watches has died."""

_ENDS = ("canary.recorded", "promotion.recorded", "rollback.recorded", "release.revoked")
"""After these a canary that was begun before is over."""

Tell = Callable[[str], None]
log = logging.getLogger(__name__)


class First(NamedTuple):
    """Somebody's first answer: who gave it, and of which kinds it was good (1) or not (0)."""

    challenger: bool
    good: Mapping[Signal, float]


class Judgement(NamedTuple):
    """``answers``: of the challenger; ``step``: the index of the share that it may have now."""

    decision: Literal["go on", "promote", "revert"]
    reason: str
    answers: int
    step: int
    signals: tuple[LiveSignal, ...]


def roll_out(
    parts: Parts,
    product: Product,
    release: ReleaseManifest,
    rule: Rollout,
    probed: CanaryVerdict,
    tell: Tell = log.info,
) -> CanaryVerdict:
    """Share the traffic until the evidence decides, on top of the verdict on the product's own prompts. Begun again
    after a crash, it goes on with what was seen. Raises `Refused` where the release may be challenger no more."""
    began = _begun(parts, product, release, rule)
    told = ""
    while True:
        traces = parts.traces.since(product.name, began.time)
        found = judge(rule, first_answers(traces, release.digest, release.displaced_champion, rule.in_time_ms))
        if found.decision == "go on" and datetime.now(UTC) > began.time + timedelta(hours=rule.hours):
            found = found._replace(decision="revert", reason=f"{rule.hours:g} hours did not tell: {found.reason}")
        if found.decision != "go on":
            outcome: Literal["pass", "fail"] = "pass" if found.decision == "promote" else "fail"
            return probed.model_copy(update={"live": found.signals, "outcome": outcome, "reason": found.reason})
        share = rule.steps[found.step]
        share_traffic(parts, product, release.digest, share, LAPSE_S)
        line = f"canary at {share:.0%} of the traffic: {found.reason}"
        if line != told:
            tell(line)
            told = line
        sleep(POLL_S)


def first_answers(
    traces: Iterable[Trace], challenger: Digest, champion: Digest | None, in_time_ms: float
) -> list[First]:
    """One answer a person, in the order in which they ended. It counts for the release that was to answer, whoever did.
    What says nothing of the releases, such as a request that could not be understood, does not count."""
    seen: set[str] = set()
    found = []
    for trace in traces:
        asked = trace.failed[0] if trace.failed else trace.release
        if trace.cohort is None or trace.cohort in seen or asked not in (challenger, champion):
            continue
        if good := _good(trace, in_time_ms):
            seen.add(trace.cohort)
            found.append(First(asked == challenger, good))
    return found


def _good(trace: Trace, in_time_ms: float) -> dict[Signal, float]:
    if trace.status >= 500 or trace.failed:
        return {"answered": 0.0}
    if trace.status == 422:  # half a JSON
        return {"json_valid": 0.0}
    if trace.status == 499:  # the client did not wait for its end
        return {"in_time": 0.0}
    if trace.status != 200:
        return {}
    good: dict[Signal, float] = {"answered": 1.0, "in_time": float(trace.latency_ms <= in_time_ms)}
    if trace.json_valid is not None:
        good["json_valid"] = float(trace.json_valid)
    if trace.refused is not None:
        good["not_refused"] = float(not trace.refused)
    return good


def judge(rule: Rollout, firsts: Sequence[First]) -> Judgement:
    """What is to be done after these answers; a pure function of them."""
    signals = tuple(_signal(rule, name, firsts) for name in rule.margins)
    answers = sum(first.challenger for first in firsts)
    step = min(answers // rule.answers, len(rule.steps) - 1)
    said = "; ".join(map(_in_words, signals))
    worse = [each.name for each in signals if each.outcome == "worse"]
    unknown = [each.name for each in signals if each.outcome == "open"]
    seen = any(each.outcome == "within" for each in signals)
    if worse:
        return Judgement(
            "revert", f"worse in {', '.join(worse)} after {answers} answers: {said}", answers, step, signals
        )
    if answers >= rule.answers * len(rule.steps) and seen and not unknown:
        return Judgement("promote", f"within all margins after {answers} answers: {said}", answers, step, signals)
    if answers >= rule.most:
        reason = f"{answers} answers did not tell {', '.join(unknown) or 'anything'}: {said}"
        return Judgement("revert", reason, answers, step, signals)
    return Judgement("go on", f"{answers} answers; {said}", answers, step, signals)


def _signal(rule: Rollout, name: Signal, firsts: Sequence[First]) -> LiveSignal:
    outcomes = [(first.challenger, first.good[name]) for first in firsts if name in first.good]
    ours, theirs = ([good for challenger, good in outcomes if challenger is side] for side in (True, False))
    pairs, margin = differences(outcomes), rule.margins[name]
    worse, within = log_e_no_worse(pairs), log_e_within(pairs, margin)
    outcome: Literal["within", "worse", "open", "unseen"] = "open"
    if not outcomes:
        outcome = "unseen"
    elif worse >= math.log(len(rule.margins) / rule.alpha):
        outcome = "worse"
    elif within >= math.log(1 / rule.alpha):
        outcome = "within"
    return LiveSignal(
        name=name,
        answers=(len(ours), len(theirs)),
        good=(_mean(ours), _mean(theirs)),
        margin=margin,
        log_e_worse=round(worse, 3),
        log_e_within=round(within, 3),
        outcome=outcome,
    )


def _mean(values: Sequence[float]) -> float:
    return round(math.fsum(values) / len(values), 4) if values else 0.0


def _in_words(signal: LiveSignal) -> str:
    if signal.outcome == "unseen":
        return f"{signal.name} unseen"
    ours, theirs = signal.good
    return f"{signal.name} {ours:.3f} against {theirs:.3f} ({signal.outcome})"


def _begun(parts: Parts, product: Product, release: ReleaseManifest, rule: Rollout) -> AuditRecord:
    """The record from which answers count: that of a canary of this release which was cut short, or a new one."""
    for record in reversed(parts.log.records()):
        if record.product == product.name and record.event in _ENDS:
            break
        if record.event == "canary.begun" and record.body["release"] == release.digest:
            return record
    body: dict[str, JsonValue] = {
        "release": release.digest,
        "champion": release.displaced_champion,
        "steps": list(rule.steps),
    }
    return parts.log.append("canary.begun", product.name, body, actor="promotion")
