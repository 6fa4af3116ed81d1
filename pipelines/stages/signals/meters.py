"""The meters: each reads one number of every window, scores it against the reference, and tells whether that lasts."""

from collections.abc import Sequence
from datetime import datetime
from itertools import accumulate

from data_contracts.frozen import Frozen
from evals.shift import evidence, more_often, psi, rises
from pipelines.stages.signals.costs import Prices
from pipelines.stages.signals.policy import MeterRule, SignalPolicy
from pipelines.stages.signals.traces import Window, percentile

P95 = 0.95


class MeterWindow(Frozen):
    """What a meter read of a window: its ``value`` over ``n`` answers, of which ``hits`` counted where it is a rate or
    a count. ``score`` is the evidence that it left the reference; it is over the threshold, or not."""

    number: int | None
    begins: datetime | None
    ends: datetime | None
    n: int
    hits: int | None
    value: float
    score: float


class History(Frozen):
    """``rises``: the CUSUM after each window, where the policy asks for it. ``lasts``: whether, after each window, what
    was seen counts as lasting drift."""

    reference: float | None
    windows: tuple[MeterWindow, ...]
    rises: tuple[float, ...]
    lasts: tuple[bool, ...]


def bar(rule: MeterRule) -> float:
    """What a score must reach: p-values as evidence."""
    return round(evidence(rule.threshold), 4) if rule.method in ("rate", "slowest", "meaning") else rule.threshold


def history(
    name: str,
    rule: MeterRule,
    policy: SignalPolicy,
    reference: Window,
    windows: Sequence[Window],
    prices: Prices | None = None,
) -> History:
    """Of windows in their order, each scored against the reference, whatever comes after it. Windows that say nothing
    of this meter are left out."""
    read = [(each, _read(name, rule, reference, each, prices)) for each in windows]
    found = [(window, one) for window, one in read if one is not None]
    scored = tuple(one for _, one in found)
    start = _value(name, rule, reference, reference, prices)
    sums: list[float] = []
    if rule.rises is not None:
        pairs = [_pair(name, rule, reference, each) for each in (reference, *(window for window, _ in found))]
        sums = rises(pairs)[1:]
    slow = [each >= rule.rises for each in sums] if rule.rises is not None else [False] * len(scored)
    lasts = [a or b for a, b in zip(_lasting(rule, policy, scored), slow, strict=True)]
    return History(
        reference=None if start is None else round(start, 4),
        windows=scored,
        rises=tuple(round(each, 2) for each in sums),
        lasts=tuple(lasts),
    )


def _lasting(rule: MeterRule, policy: SignalPolicy, windows: Sequence[MeterWindow]) -> list[bool]:
    """Of the newest ``windows``, ``sustained`` are over. What was never seen adds up over them; what is a limit by
    itself needs no second look."""
    scores = [each.score for each in windows]
    if rule.method == "limit":
        return [score >= rule.threshold for score in scores]
    each = scores if rule.method == "unseen" else [float(score >= bar(rule)) for score in scores]
    needed = rule.threshold if rule.method == "unseen" else policy.sustained
    sums = [0.0, *accumulate(each)]
    return [sums[i + 1] - sums[max(0, i + 1 - policy.windows)] >= needed for i in range(len(each))]


def _read(name: str, rule: MeterRule, reference: Window, window: Window, prices: Prices | None) -> MeterWindow | None:
    value = _value(name, rule, reference, window, prices)
    if value is None:
        return None
    hits, n = _pair(name, rule, reference, window)
    return MeterWindow(
        number=window.number,
        begins=window.begins,
        ends=window.ends,
        n=n,
        hits=hits if rule.method in ("rate", "slowest", "unseen") else None,
        value=round(value, 4),
        score=round(_score(name, rule, reference, window, value, prices), 4),
    )


def _value(name: str, rule: MeterRule, reference: Window, window: Window, prices: Prices | None) -> float | None:
    """In the unit that people know: a share, milliseconds, money, days; ``None`` where the window does not say."""
    counts = window.counts.get(rule.counted or name, {})
    match rule.method:
        case "rate":
            hits, n = _pair(name, rule, reference, window)
            return hits / n if n else None
        case "slowest":
            return percentile(counts, P95) if counts else None
        case "shares":
            before = reference.counts.get(rule.counted or name, {})
            return psi(before, counts) if before and counts else None
        case "unseen":
            known = reference.counts.get(rule.counted or name)
            return float(_pair(name, rule, reference, window)[0]) if known else None
        case "meaning" | "limit":
            return window.values.get(name)
        case "growth":
            return _cost(window, prices)


def _score(name: str, rule: MeterRule, reference: Window, window: Window, value: float, prices: Prices | None) -> float:
    match rule.method:
        case "rate" | "slowest":
            return more_often(_pair(name, rule, reference, reference), _pair(name, rule, reference, window))
        case "meaning":
            return evidence(value)
        case "growth":
            before = _cost(reference, prices)
            return value / before if before else 0.0
        case _:
            return value


def _pair(name: str, rule: MeterRule, reference: Window, window: Window) -> tuple[int, int]:
    """What is counted of a window, and of how many."""
    counts = window.counts.get(rule.counted or name, {})
    if rule.method == "rate":
        hits = counts.get(rule.hit, 0)
        return hits, hits + counts.get(rule.miss, 0)
    if rule.method == "slowest":
        before = reference.counts.get(rule.counted or name, {})
        return _beyond(before, counts), sum(counts.values())
    if rule.method == "unseen":
        known = reference.counts.get(rule.counted or name, {})
        return sum(count for each, count in counts.items() if each not in known), sum(counts.values())
    return 0, window.answers


def _beyond(reference: dict[str, int], counts: dict[str, int]) -> int:
    """Times slower than the reference's 95th percentile, by the powers that a window counts."""
    left, edge = 0.95 * sum(reference.values()), 0
    for power in sorted(map(int, reference)):
        left -= reference[str(power)]
        edge = power
        if left <= 0:
            break
    return sum(count for power, count in counts.items() if int(power) > edge)


def _cost(window: Window, prices: Prices | None) -> float | None:
    """Of 1,000 answers, by today's prices of tokens."""
    if prices is None or not window.answers or "prompt_tokens" not in window.values:
        return None
    spent = (
        window.values["prompt_tokens"] * prices.prompt_1000
        + window.values["completion_tokens"] * prices.completion_1000
    )
    return spent / window.answers
