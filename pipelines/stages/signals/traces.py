"""Traffic as the gateway saw it: the live release's first window of answers, and its newest ones. Counts, no text."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from data_contracts.actions import action_key, code_version, remembered
from data_contracts.chain import live_releases
from data_contracts.digests import Digest
from data_contracts.frozen import Frozen
from data_contracts.traces import Trace
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.signals.policy import SignalPolicy

_LOOK_BACK = 20_000
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
    recent = parts.traces.recent(product.name, _LOOK_BACK)
    answers = sorted((t for t in recent if t.release == release and t.status == 200), key=lambda t: t.time)
    if len(answers) < policy.window:
        return Traffic(product=product.name, release=release, policy=policy.digest, reference=None, current=())
    reference = _reference(parts, product, release, answers, policy)
    newer = answers[policy.window :]
    return Traffic(
        product=product.name,
        release=release,
        policy=policy.digest,
        reference=reference,
        current=tuple(_newest_windows(newer, policy)),
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


def _reference(
    parts: Parts, product: Product, release: Digest, answers: Sequence[Trace], policy: SignalPolicy
) -> Window:
    """The first window, kept in the store once it is full, so that it does not move as old traces go."""
    key = action_key("signals.reference", code_version(__name__), policy.payload(), [release], seed=0)
    window, _ = remembered(parts.store, key, Window, lambda: summarize(answers[: policy.window], policy))
    return window


def _newest_windows(answers: Sequence[Trace], policy: SignalPolicy) -> list[Window]:
    """Whole windows counted from the first answer, so that a window once full does not change with the next answer."""
    whole = len(answers) // policy.window
    starts = range(max(0, whole - policy.windows) * policy.window, whole * policy.window, policy.window)
    return [summarize(answers[start : start + policy.window], policy) for start in starts]


def _length_bin(chars: int, policy: SignalPolicy) -> str:
    edges = policy.prompt_chars_edges
    index = bisect_right(edges, chars)
    return f"{edges[-1]}+" if index == len(edges) else f"<{edges[index]}"


def _counts(categories: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(categories).items()))
