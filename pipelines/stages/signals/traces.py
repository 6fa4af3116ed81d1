"""Traffic as the gateway saw it: the live release's first window of answers, and its newest ones. Counts, no text."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Literal

from data_contracts.chain import live_releases
from data_contracts.digests import Digest
from data_contracts.frozen import Frozen
from data_contracts.traces import SealedWindow, Trace
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.signals.policy import SignalPolicy

_AT_ONCE = 10_000
"""Answers that are looked at together when windows are sealed, or one window of more."""
_VALIDITY = {True: "valid", False: "invalid", None: "not asked for"}


Feature = Literal["prompt_chars", "tool", "json_valid"]


class Window(Frozen):
    """Histograms of ``answers`` answers: feature -> category -> count."""

    answers: int
    counts: dict[Feature, dict[str, int]]


class Traffic(Frozen):
    """What there is to compare. ``reference`` is the release's first whole window, ``None`` until it is full;
    ``current`` are the newest whole windows, oldest first."""

    product: str
    release: Digest | None
    policy: Digest
    reference: Window | None
    current: tuple[Window, ...]


def traffic(parts: Parts, product: Product, policy: SignalPolicy) -> Traffic:
    """Traffic of the release that is live by the audit log. Nothing is compared when the base answers."""
    release = live_releases(parts.log.records()).get((product.name, product.environment))
    if release is None:
        return Traffic(product=product.name, release=None, policy=policy.digest, reference=None, current=())
    seal(parts, product, release, policy)
    windows = parts.traces.sealed(release, policy.shape, policy.windows)
    first, newest = [each for each in windows if each.number == 0], [each for each in windows if each.number]
    return Traffic(
        product=product.name,
        release=release,
        policy=policy.digest,
        reference=_window(first[0]) if first else None,
        current=tuple(map(_window, newest)),
    )


def seal(parts: Parts, product: Product, release: Digest, policy: SignalPolicy) -> None:
    """Cut the release's answers into windows, one after the other, and keep each for good: a later look finds the same
    ones, and new ones after them. Answers of the last moments may not be here yet: they are left for the next look."""
    until = datetime.now(UTC) - timedelta(seconds=policy.grace_seconds)
    each_time = max(1, _AT_ONCE // policy.window)
    with parts.locks.hold(f"windows-{product.name}"):
        known = parts.traces.sealed(release, policy.shape, 1)
        last = known[-1] if known else None
        while True:
            after = last.end if last else None
            found = parts.traces.whole_answers(product.name, release, after, until, each_time * policy.window)
            begins = range(0, len(found) - policy.window + 1, policy.window)
            number = last.number + 1 if last else 0
            fresh = [_sealed(number + i, found[b : b + policy.window], policy) for i, b in enumerate(begins)]
            if not fresh:
                return
            parts.traces.seal(release, policy.shape, fresh)
            last = fresh[-1]


def late(parts: Parts, product: Product, release: Digest, policy: SignalPolicy) -> int:
    """Answers that came when the newest windows, in which they would have been, were sealed. They count in none."""
    windows = parts.traces.sealed(release, policy.shape, policy.windows + 1)
    return sum(
        parts.traces.whole_between(product.name, release, before.end, window.end) - window.answers
        for before, window in pairwise(windows)
        if window.number == before.number + 1
    )


def summarize(traces: Sequence[Trace], policy: SignalPolicy) -> Window:
    return Window(
        answers=len(traces),
        counts={
            "prompt_chars": _counts(_length_bin(trace.prompt_chars, policy) for trace in traces),
            "tool": _counts(trace.tool or "none" for trace in traces),
            "json_valid": _counts(_VALIDITY[trace.json_valid] for trace in traces),
        },
    )


def _sealed(number: int, answers: Sequence[Trace], policy: SignalPolicy) -> SealedWindow:
    window, last = summarize(answers, policy), answers[-1]
    return SealedWindow(number=number, time=last.time, last=last.trace_id, **window.payload())


def _window(sealed: SealedWindow) -> Window:
    return Window.model_validate({"answers": sealed.answers, "counts": sealed.counts})


def _length_bin(chars: int, policy: SignalPolicy) -> str:
    edges = policy.prompt_chars_edges
    index = bisect_right(edges, chars)
    return f"{edges[-1]}+" if index == len(edges) else f"<{edges[index]}"


def _counts(categories: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(categories).items()))
