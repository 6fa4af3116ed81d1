"""How far raters agree: Krippendorff's alpha with an interval over items, and what each rater did.

Alpha (Krippendorff 2011, "Computing Krippendorff's alpha-reliability") is 1 - observed / expected disagreement: 1 where
raters always agree, 0 where they agree as often as by chance.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import pstdev
from typing import TYPE_CHECKING, Any, NamedTuple

from evals.stats import MIN_CLUSTERS, StatsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TAIL = 0.025
_RESAMPLES = 2000


class Rated(NamedTuple):
    """One rater's label of one item."""

    item: str
    rater: str
    label: str


class Agreement(NamedTuple):
    """Alpha with its 95% interval. ``items`` counts those with two ratings or more; others tell of no agreement."""

    alpha: float
    low: float
    high: float
    items: int
    raters: int


class RaterReport(NamedTuple):
    """``agrees`` is the share of ``compared`` items on which the rater says what most of the other raters say (items
    without such a majority are left out). ``shares`` of the labels show a leaning to a place; ``one_sided`` is who,
    ties aside, gives one label only, and gave it to `MIN_CLUSTERS` items or more."""

    rated: int
    compared: int
    agrees: float | None
    shares: dict[str, float]
    one_sided: bool


def agreement(ratings: Sequence[Rated], order: Sequence[str] = (), seed: int = 0) -> Agreement:
    """Alpha of nominal labels, or of ordinal ones where ``order`` names them from low to high. It does not depend
    on the order of the ratings, nor on how raters and items are called.

    The interval is the percentile bootstrap over items (Zapf et al. 2016, doi:10.1186/s12874-016-0200-9). Where no item
    was disagreed on there is nothing to resample: it then reaches down as far as the rule of three says.

    Raises `StatsError` for a repeated rating, for fewer than `MIN_CLUSTERS` items with two ratings, for a label without
    a place in the order, and where all labels are the same, so that alpha is not defined.
    """
    import numpy as np
    from nltk.metrics.agreement import AnnotationTask

    items = {item: given for item, given in by_item(ratings).items() if len(given) > 1}
    if len(items) < MIN_CLUSTERS:
        raise StatsError(f"{len(items)} items have two ratings or more, and alpha needs {MIN_CLUSTERS} of them")
    total = Counter(label for given in items.values() for label in given.values())
    if len(total) < 2:
        raise StatsError(f"all ratings of {len(items)} items are the same, so that alpha is not defined")
    if order and (strange := sorted(set(total) - set(order))):
        raise StatsError(f"the label {strange[0]!r} has no place in the order {', '.join(order)}")
    labels = [label for label in order if label in total] or sorted(total)

    # Items that are rated alike are resampled as one pattern of counts, so that a million items cost what ten do.
    alike = Counter(tuple(map(Counter(given.values()).__getitem__, labels)) for given in items.values())
    patterns, times = np.array(sorted(alike)), np.array([alike[each] for each in sorted(alike)])
    distances = _distances(np.array([[total[label] for label in labels]]), bool(order))[0]

    task = AnnotationTask(
        [(rater, item, labels.index(label)) for item, given in items.items() for rater, label in given.items()],
        distance=lambda one, other: float(distances[one, other]),
    )
    alpha = float(task.alpha())
    if alpha == 1:
        expected = task.Disagreement({labels.index(label): count for label, count in total.items()})
        low, high = max(-1.0, 1 - (1 - _TAIL ** (1 / len(items))) * float(distances.max()) / expected), 1.0
    else:
        drawn = np.random.default_rng(seed).multinomial(len(items), times / len(items), size=_RESAMPLES)
        low, high = np.nanquantile(_alphas(drawn, patterns, bool(order)), [_TAIL, 1 - _TAIL])
    raters = {rater for given in items.values() for rater in given}
    return Agreement(alpha, min(float(low), alpha), max(float(high), alpha), len(items), len(raters))


def rater_reports(ratings: Sequence[Rated], tie: str | None = None) -> dict[str, RaterReport]:
    """What each rater did, by rater. ``tie`` is the label that prefers neither place."""
    items = by_item(ratings)
    given: defaultdict[str, Counter[str]] = defaultdict(Counter)
    right, compared = Counter[str](), Counter[str]()
    for labels in items.values():
        for rater, label in labels.items():
            given[rater][label] += 1
            others = majority([each for who, each in labels.items() if who != rater])
            if others is not None:
                compared[rater] += 1
                right[rater] += label == others
    reports = {}
    for rater, counts in sorted(given.items()):
        sides = [count for label, count in counts.items() if label != tie]
        reports[rater] = RaterReport(
            rated=counts.total(),
            compared=compared[rater],
            agrees=round(right[rater] / compared[rater], 4) if compared[rater] else None,
            shares={label: round(count / counts.total(), 4) for label, count in sorted(counts.items())},
            one_sided=len(sides) == 1 and sides[0] >= MIN_CLUSTERS,
        )
    return reports


def spread(reports: Mapping[str, RaterReport]) -> dict[str, float]:
    """How much raters differ from each other: the standard deviation over raters of ``agrees`` and of each share."""
    labels = sorted({label for report in reports.values() for label in report.shares})
    agrees = [report.agrees for report in reports.values() if report.agrees is not None]
    shares = {label: pstdev(report.shares.get(label, 0.0) for report in reports.values()) for label in labels}
    return {name: round(value, 4) for name, value in {"agrees": pstdev(agrees or [0.0]), **shares}.items()}


def majority(labels: Sequence[str]) -> str | None:
    """The label that more than half of the raters give."""
    label, count = Counter(labels).most_common(1)[0] if labels else ("", 0)
    return label if 2 * count > len(labels) else None


def by_item(ratings: Sequence[Rated]) -> Mapping[str, dict[str, str]]:
    """Item -> rater -> label. Raises `StatsError` where a rater rates an item twice."""
    items: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for rating in ratings:
        if rating.rater in items[rating.item]:
            raise StatsError(f"rater {rating.rater} rates item {rating.item} twice; keep one of the two")
        items[rating.item][rating.rater] = rating.label
    return items


def _alphas(weights: "NDArray[Any]", patterns: "NDArray[Any]", ordinal: bool) -> "NDArray[Any]":
    """Alpha of each resample by its matrix of coincidences; NaN where all of its labels are the same. ``weights``
    [resamples, patterns] says how often each of ``patterns`` [patterns, labels] was drawn."""
    import numpy as np

    paired = patterns[:, :, None] * patterns[:, None, :] - patterns[:, :, None] * np.eye(patterns.shape[1])
    paired = paired / (patterns.sum(axis=1) - 1)[:, None, None]
    observed = np.tensordot(weights, paired, axes=1)
    total = weights @ patterns
    chance = total[:, :, None] * total[:, None, :] - total[:, :, None] * np.eye(patterns.shape[1])
    chance = chance / (total.sum(axis=1) - 1)[:, None, None]
    distances = _distances(total, ordinal)
    with np.errstate(invalid="ignore"):
        alphas: NDArray[Any] = 1 - (observed * distances).sum(axis=(1, 2)) / (chance * distances).sum(axis=(1, 2))
    return alphas


def _distances(total: "NDArray[Any]", ordinal: bool) -> "NDArray[Any]":
    """Squared distances of labels [resamples, labels, labels]: 0 or 1, or, where labels have an order, by the
    difference of their middle ranks among all ratings. ``total`` [resamples, labels] counts each label."""
    import numpy as np

    if not ordinal:
        return np.broadcast_to(1.0 - np.eye(total.shape[1]), (len(total), total.shape[1], total.shape[1]))
    ranks = np.cumsum(total, axis=1) - total / 2
    squared: NDArray[Any] = (ranks[:, :, None] - ranks[:, None, :]) ** 2
    return squared
