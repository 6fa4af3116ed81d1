"""Traffic as the gateway saw it: the live release's first window of answers, and its newest ones. Counts, no text."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import ceil, log

from data_contracts.chain import AuditRecord, live_releases
from data_contracts.digests import Digest
from data_contracts.feedback import Feedback
from data_contracts.frozen import Frozen
from data_contracts.records import NO_TOOL
from data_contracts.traces import SealedWindow, Trace
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.signals.policy import SignalPolicy

_AT_ONCE = 10_000
"""Answers that are looked at together when windows are sealed, or one window of more."""
_VALIDITY = {True: "valid", False: "invalid", None: "not asked for"}
_STEP = 1.1
"""Times are counted by powers of it: a percentile is known to a tenth."""


class Window(Frozen):
    """Histograms of ``answers`` answers, feature -> category -> count, and what else is known of them. A window that
    was made for good has its ``number`` and its time."""

    answers: int
    counts: dict[str, dict[str, int]]
    values: dict[str, float] = {}
    number: int | None = None
    begins: datetime | None = None
    ends: datetime | None = None


class Traffic(Frozen):
    """What there is to compare. ``reference`` is the release's first whole window, ``None`` until it is full;
    ``current`` are the newest whole windows, oldest first."""

    product: str
    release: Digest | None
    policy: Digest
    reference: Window | None
    current: tuple[Window, ...]


class Said(Frozen):
    """What happened beside whole answers in the same time: when requests failed, and what people said."""

    failed: tuple[datetime, ...] = ()
    feedback: tuple[Feedback, ...] = ()

    def between(self, after: datetime, until: datetime) -> "Said":
        begin, end = bisect_right(self.failed, after), bisect_right(self.failed, until)
        said = tuple(each for each in self.feedback if after < each.time <= until)
        return Said(failed=self.failed[begin:end], feedback=said)


def live_release(parts: Parts, product: Product) -> Digest | None:
    return live_releases(parts.log.records()).get((product.name, product.environment))


def traffic(parts: Parts, product: Product, policy: SignalPolicy, now: datetime | None = None) -> Traffic:
    """Traffic of the release that is live by the audit log. Nothing is compared when the base answers."""
    release = live_release(parts, product)
    if release is not None:
        seal(parts, product, release, policy, now)
    return kept(parts, product, release, policy, policy.shape)


def kept(parts: Parts, product: Product, release: Digest | None, policy: SignalPolicy, shape: Digest) -> Traffic:
    """The sealed windows of a shape."""
    windows = parts.traces.sealed(release, shape, policy.history) if release else []
    first, newest = [each for each in windows if each.number == 0], [each for each in windows if each.number]
    return Traffic(
        product=product.name,
        release=release,
        policy=policy.digest,
        reference=_window(first[0]) if first else None,
        current=tuple(map(_window, newest)),
    )


def seal(parts: Parts, product: Product, release: Digest, policy: SignalPolicy, now: datetime | None = None) -> None:
    """Cut the release's answers into windows, one after the other, and keep each for good: a later look finds the same
    ones, and new ones after them. Answers of the last moments may not be here yet: they are left for the next look."""
    until = (now or datetime.now(UTC)) - timedelta(seconds=policy.grace_seconds)
    each_time = max(1, _AT_ONCE // policy.window)
    with parts.locks.hold(f"windows-{product.name}"):
        learned = _learned(parts.log.records(), release)
        known = parts.traces.sealed(release, policy.shape, 1)
        last = known[-1] if known else None
        while True:
            after = last.end if last else None
            found = parts.traces.whole_answers(product.name, release, after, until, each_time * policy.window)
            whole = len(found) // policy.window
            if not whole:
                return
            begins = last.time if last else found[0].time
            said = _said(parts, product.name, release, begins, found[whole * policy.window - 1].time)
            fresh: list[SealedWindow] = []
            for start in range(0, whole * policy.window, policy.window):
                number = last.number + 1 if last else 0
                last = _sealed(number, begins, found[start : start + policy.window], policy, said, learned)
                fresh.append(last)
                begins = last.time
            parts.traces.seal(release, policy.shape, fresh)


def late(parts: Parts, product: Product, release: Digest, policy: SignalPolicy) -> int:
    """Answers that came when the newest windows, in which they would have been, were sealed. They count in none."""
    windows = parts.traces.sealed(release, policy.shape, policy.windows + 1)
    return sum(
        parts.traces.whole_between(product.name, release, before.end, window.end) - window.answers
        for before, window in pairwise(windows)
        if window.number == before.number + 1
    )


def summarize(traces: Sequence[Trace], policy: SignalPolicy, said: Said | None = None) -> Window:
    """``said``: what happened in the time of these answers."""
    said = said or Said()
    users = [each for each in said.feedback if each.by == "user"]
    streamed = [trace.first_token_ms for trace in traces if trace.first_token_ms is not None]
    return Window(
        answers=len(traces),
        counts={
            "prompt_chars": counted(binned(trace.prompt_chars, policy.prompt_chars_edges) for trace in traces),
            "answer_tokens": counted(binned(trace.completion_tokens, policy.answer_tokens_edges) for trace in traces),
            "tool": counted(trace.tool or NO_TOOL for trace in traces),
            "json_valid": counted(_VALIDITY[trace.json_valid] for trace in traces),
            "latency_ms": counted(_power(trace.latency_ms) for trace in traces),
            "first_token_ms": counted(map(_power, streamed)),
            "errors": hits(len(said.failed), len(traces) + len(said.failed)),
            "bad_ratings": hits(len({each.trace_id for each in users if each.rating == "bad"}), len(traces)),
            "corrections": hits(len({each.trace_id for each in users if each.correction is not None}), len(traces)),
            "label": counted(each.label for each in said.feedback if each.by == "reviewer" and each.label),
        },
        values={
            "prompt_tokens": sum(trace.prompt_tokens for trace in traces),
            "completion_tokens": sum(trace.completion_tokens for trace in traces),
        },
    )


def percentile(times: Mapping[str, int], share: float) -> float:
    """The least time, to a tenth, that so many do not exceed. ``times`` counts by powers, as a window does."""
    left = ceil(share * sum(times.values()))
    for power in sorted(times, key=int):
        left -= times[power]
        if left <= 0:
            return round(_STEP ** int(power), 1)
    return 0.0


def counted(categories: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(categories).items()))


def hits(count: int, of: int) -> dict[str, int]:
    """More than one may speak of an answer of an earlier window: no rate is above 1."""
    return {"hit": min(count, of), "miss": max(0, of - count)}


def binned(size: float, edges: Sequence[float]) -> str:
    index = bisect_right(edges, size)
    return f"{edges[-1]}+" if index == len(edges) else f"<{edges[index]}"


def _power(ms: float) -> str:
    return str(ceil(log(max(ms, 1.0), _STEP)))


def _sealed(
    number: int,
    begins: datetime,
    answers: Sequence[Trace],
    policy: SignalPolicy,
    said: Said,
    learned: datetime | None,
) -> SealedWindow:
    last = answers[-1]
    window = summarize(answers, policy, said.between(begins, last.time))
    age = {"label_age_days": round((last.time - learned) / timedelta(days=1), 2)} if learned else {}
    return SealedWindow(
        number=number,
        begins=begins,
        time=last.time,
        last=last.trace_id,
        answers=window.answers,
        counts=window.counts,
        values=window.values | age,
    )


def _said(parts: Parts, product: str, release: Digest, after: datetime, until: datetime) -> Said:
    said = parts.feedback.feedback(product, after, until + timedelta(microseconds=1))
    return Said(
        failed=tuple(parts.traces.failures(product, release, after, until)),
        feedback=tuple(each for each in said if each.release == release),
    )


def _learned(log: Sequence[AuditRecord], release: Digest) -> datetime | None:
    """When the release was registered: it knows no label that is newer."""
    events = ("release.registered", "promotion.recorded")
    return next((each.time for each in log if each.event in events and each.body.get("release") == release), None)


def _window(sealed: SealedWindow) -> Window:
    return Window(
        answers=sealed.answers,
        counts=sealed.counts,
        values=sealed.values,
        number=sealed.number,
        begins=sealed.begins,
        ends=sealed.time,
    )
