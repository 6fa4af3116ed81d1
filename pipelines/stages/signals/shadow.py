"""A shadow beside the release that answers, on the same requests: numbers to look at. They decide nothing: who asks
what, and when, was not drawn for a test."""

from collections.abc import Sequence
from itertools import groupby
from statistics import fmean, median

from data_contracts.digests import Digest
from data_contracts.errors import Missing
from data_contracts.frozen import Frozen
from data_contracts.traces import ShadowTrace
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.serve.routes import shadow_of


class Beside(Frozen):
    """Pairs are (live, shadow) over the requests that both answered. ``live`` is ``None`` where the base answered.
    ``equal`` of ``compared`` answers were the same to the letter; drawn ones (temperature above 0) are not compared."""

    live: Digest | None
    shadow: Digest
    mirrored: int
    failed: int
    compared: int
    equal: int
    json_valid: tuple[float, float] | None
    median_ms: tuple[float, float] | None


class Shadowing(Frozen):
    """``share`` is 0 where nothing is mirrored now; ``beside`` is of the newest shadowing, that may be over."""

    product: str
    shadow: Digest | None
    share: float
    beside: tuple[Beside, ...]


def shadowing(parts: Parts, product: Product) -> Shadowing:
    """Raises `Missing` where nothing was ever mirrored."""
    records = parts.log.records()
    place = (product.name, product.environment)
    begun = [r for r in records if r.event == "shadow.begun" and (r.product, r.body["environment"]) == place]
    if not begun:
        raise Missing(
            f"{product.name} never had a shadow: assay shadow {product.name} --release sha256:... --share 0.1"
        )
    shadow, share = shadow_of(records, *place)
    found = parts.traces.shadows(product.name, begun[-1].time)
    return Shadowing(product=product.name, shadow=shadow, share=share, beside=beside(found))


def beside(traces: Sequence[ShadowTrace]) -> tuple[Beside, ...]:
    """By who answered and who was asked too."""

    def pair(trace: ShadowTrace) -> tuple[str, Digest]:
        return trace.live or "", trace.shadow

    return tuple(_of_pair(list(same)) for _, same in groupby(sorted(traces, key=pair), key=pair))


def _of_pair(traces: Sequence[ShadowTrace]) -> Beside:
    both = [(trace, trace.ms) for trace in traces if trace.ms is not None]
    compared = [trace.equal for trace in traces if trace.equal is not None]
    return Beside(
        live=traces[0].live,
        shadow=traces[0].shadow,
        mirrored=len(traces),
        failed=len(traces) - len(both),
        compared=len(compared),
        equal=sum(compared),
        json_valid=_rounded(fmean(t.live_json_valid for t, _ in both), fmean(bool(t.json_valid) for t, _ in both), 4)
        if both
        else None,
        median_ms=_rounded(median(trace.live_ms for trace, _ in both), median(ms for _, ms in both), 1)
        if both
        else None,
    )


def _rounded(live: float, shadow: float, digits: int) -> tuple[float, float]:
    return round(live, digits), round(shadow, digits)
