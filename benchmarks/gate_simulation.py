"""How often the gate errs, what it can show, and how a naive interval does beside it.

    python benchmarks/gate_simulation.py [--section NAME] [--worlds 4000] [--seed 1]

A world is a draw of paired differences whose true mean is known. Error rates are one-sided at a nominal 2.5 %
(intervals of 95 %); of 4000 worlds a rate of 2.5 % is known to within 0.5 points (two standard errors). Where clusters
have one size, all worlds of a cell are reckoned at once in numpy, and the first of them again by the gate's own
function; everything else calls the gate itself. Prints Markdown.

Differences, in k clusters of m items with an intra-cluster correlation (ICC):
- 0/1 scores: a share of items gets worse, a share better, the rest stays; over clusters by a Dirichlet.
- even: normal around 0.03, standard deviation 0.1; skewed: minus an exponential of mean 0.1; heavy: minus a log-normal
  (mu -3, sigma 1), at most 1.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from data_contracts.verdicts import ItemScore
from evals import stats
from evals.criteria import POWER
from evals.gate import evaluate_policy
from evals.plain_scores import PlainScores
from evals.policy import Criterion, GatePolicy
from evals.sequential import log_e_at_most, log_e_no_worse

CONFIDENCE, TAIL, RESAMPLES, CHECKED, BATCH = 0.95, 0.025, 1000, 10, 250
Values = NDArray[Any]
Draw = Callable[[np.random.Generator, int, int, int, float], Values]


class Kind(NamedTuple):
    """``draw(random, worlds, k, m, icc)`` gives differences [worlds, k, m] whose true mean is ``truth``."""

    name: str
    truth: float
    draw: Draw


def shares(worse: float, better: float) -> Kind:
    def draw(random: np.random.Generator, worlds: int, k: int, m: int, icc: float) -> Values:
        share = np.array([worse, 1 - worse - better, better])
        if icc >= 1:
            return np.repeat(random.choice([-1.0, 0.0, 1.0], size=(worlds, k, 1), p=share), m, axis=2)
        if icc > 0:  # of a share that is 0 a Dirichlet cannot be drawn: 1e-12 gives 0 to all purposes
            gamma = random.standard_gamma(np.maximum(share * (1 / icc - 1), 1e-12), size=(worlds, k, 3))
            share = gamma / gamma.sum(axis=2, keepdims=True)
        edges, drawn = np.cumsum(np.broadcast_to(share, (worlds, k, 3)), axis=2), random.random((worlds, k, m))
        return np.where(drawn < edges[..., :1], -1.0, np.where(drawn < edges[..., 1:2], 0.0, 1.0))

    return Kind(f"0/1: {100 * worse:g} % worse, {100 * better:g} % better", better - worse, draw)


def smooth(name: str, truth: float, shape: Callable[[Values], Values]) -> Kind:
    """``shape`` makes differences of standard normals with the wanted correlation."""

    def draw(random: np.random.Generator, worlds: int, k: int, m: int, icc: float) -> Values:
        apart, alike = random.normal(size=(worlds, k, m)), random.normal(size=(worlds, k, 1))
        return np.clip(shape(math.sqrt(icc) * alike + math.sqrt(1 - icc) * apart), -1, 1)

    return Kind(name, truth, draw)


EVEN = smooth("even", 0.03, lambda z: 0.03 + 0.1 * z)
SKEWED = smooth("skewed", -0.1, lambda z: 0.1 * np.log(ndtr(-z)))
# E min(X, 1) of a log-normal: exp(mu + sigma^2 / 2) * Phi(-(mu + sigma^2) / sigma) + Phi(mu / sigma).
HEAVY = smooth("heavy", -float(math.exp(-2.5) * ndtr(2) + ndtr(-3)), lambda z: -np.minimum(np.exp(z - 3), 1))
KINDS = (shares(0.1, 0), shares(0.2, 0.05), shares(0.2, 0.2), EVEN, SKEWED, HEAVY)
SHAPES = ((1, 0.0), (6, 0.1), (6, 0.3), (6, 1.0))
CLUSTERS = (8, 12, 20, 50)


def scored(clusters: Sequence[Values]) -> list[stats.Score]:
    return [
        stats.Score(f"{c}-{i}", f"c{c}", float(v)) for c, values in enumerate(clusters) for i, v in enumerate(values)
    ]


def naive(values: Values) -> tuple[Values, Values]:
    """Student's t over items, as though no two hung together."""
    flat = values.reshape(len(values), -1)
    n = flat.shape[1]
    reach = -stdtrit(n - 1, TAIL) * flat.std(axis=1, ddof=1) / math.sqrt(n)
    return flat.mean(axis=1) - reach, flat.mean(axis=1) + reach


def percentile(values: Values, random: np.random.Generator) -> tuple[Values, Values]:
    """The gate's former one: percentile bootstrap over clusters, widened to t (Hesterberg 2015), and rule of three."""
    _, k, _ = values.shape
    counts = random.multinomial(k, [1 / k] * k, size=RESAMPLES).T
    means = values.mean(axis=2) @ counts / k
    tail = ndtr(math.sqrt(k / (k - 1)) * stdtrit(k - 1, TAIL))
    low, high = np.quantile(means, [tail, 1 - tail], axis=1)
    same, mean = np.ptp(values, axis=(1, 2)) == 0, values.mean(axis=(1, 2))
    reach = 1 - TAIL ** (1 / k)
    return np.where(same, mean - reach, low), np.where(same, mean + reach, high)


def ours(values: Values, random: np.random.Generator) -> tuple[Values, Values]:
    """`stats.cluster_difference` for many worlds at once; `agreement` holds the two together."""
    _, k, m = values.shape
    mean, largest = values.mean(axis=(1, 2)), np.abs(values).max(axis=(1, 2))
    off = values - mean[:, None, None]
    scale = np.abs(off).max(axis=(1, 2))
    off = off / np.where(scale == 0, 1, scale)[:, None, None]
    together, apart = (off.sum(axis=2) ** 2).sum(axis=1), (off**2).sum(axis=(1, 2))
    unseen = np.clip((together * k / (k - 1) + m) / (apart + 1), 1, m)
    unseen = np.where((scale == 0) | (k < stats.MIN_CLUSTERS), m, unseen)
    end = np.where(largest == 0, 1, np.minimum(1, largest * (1 + 16 / k)))
    weights = random.standard_exponential((k + 1, RESAMPLES))
    sums, sizes = values.sum(axis=2) @ weights[:k], m * weights[:k].sum(axis=0)
    added = unseen[:, None] * weights[k]
    tails = np.where(unseen < m, ndtr(stdtrit(k, TAIL)), TAIL)
    lower, upper = ((sums + added * sign * end[:, None]) / (sizes + added) for sign in (-1, 1))
    low, high = np.empty(len(values)), np.empty(len(values))
    for tail in np.unique(tails):
        here = tails == tail
        low[here], high[here] = np.quantile(lower[here], tail, axis=1), np.quantile(upper[here], 1 - tail, axis=1)
    return np.minimum(low, mean), np.maximum(high, mean)


def agreement(values: Values, found: tuple[Values, Values]) -> float:
    """The mean distance of the gate's own bounds from these, in widths: both are resampled, so that it is not 0."""
    apart = []
    for world, low, high in zip(values[:CHECKED], *found, strict=False):
        gate = stats.cluster_interval(scored(list(world)), CONFIDENCE, RESAMPLES)
        apart.append((gate.low - low + high - gate.high) / (high - low) / 2)
    return float(np.mean(apart))


def batches(kind: Kind, random: np.random.Generator, worlds: int, k: int, m: int, icc: float) -> Iterator[Values]:
    for _ in range(0, worlds, BATCH):
        yield kind.draw(random, min(BATCH, worlds), k, m, icc)


class Missed(NamedTuple):
    """Shares of worlds whose truth lies below or above the interval, and the interval's mean width."""

    low: float
    high: float
    width: float

    def __str__(self) -> str:
        return f"{100 * self.low:.1f} / {100 * self.high:.1f} / {self.width:.2f}"


def missed(found: Sequence[tuple[Values, Values]], truth: float) -> Missed:
    low, high = (np.concatenate(side) for side in zip(*found, strict=True))
    return Missed(float((low > truth + 1e-9).mean()), float((high < truth - 1e-9).mean()), float((high - low).mean()))


def coverage(random: np.random.Generator, worlds: int) -> None:
    print("### Errors of the interval\n\nOf each interval: truth below it, % / truth above it, % / mean width.\n")
    heads(
        "differences", "clusters", "items each", "ICC", "naive t over items", "before: percentile bootstrap", "the gate"
    )
    worst: dict[str, list[float]] = {"naive": [], "before": [], "the gate": []}
    apart = []
    for kind in KINDS:
        for k in CLUSTERS:
            for m, icc in SHAPES:
                found: dict[str, list[tuple[Values, Values]]] = {name: [] for name in worst}
                for values in batches(kind, random, worlds, k, m, icc):
                    found["naive"].append(naive(values))
                    found["before"].append(percentile(values, random))
                    found["the gate"].append(ours(values, random))
                    if len(found["naive"]) == 1:
                        apart.append(agreement(values, found["the gate"][0]))
                told = {name: missed(each, kind.truth) for name, each in found.items()}
                for name, each in told.items():
                    worst[name] += [each.low, each.high]
                row(kind.name, k, m, icc, *told.values())
    print()
    heads("interval", "highest error of one side, %", f"sides of {len(worst['naive'])} above 3.5 %")
    for name, errors in worst.items():
        row(name, f"{100 * max(errors):.1f}", sum(error > 0.035 for error in errors))
    print(f"\nThe gate's own function and the vectorised one differ by {max(map(abs, apart)):.3f} widths at most.\n")


def unequal(random: np.random.Generator, worlds: int) -> None:
    print("### Clusters of unequal size, by the gate's own function\n")
    heads("differences", "sizes of clusters", "ICC", "naive t over items", "the gate")
    for sizes in ([1] * 43 + [2, 3, 4, 4], [2, 3, 4, 6, 6, 7, 8, 8, 9, 12, 14, 20]):
        for kind in (shares(0.1, 0), shares(0.2, 0.2)):
            plain, gate = [], []
            for world in range(worlds):
                drawn = [kind.draw(random, 1, 1, size, 0.3)[0, 0] for size in sizes]
                plain.append(naive(np.concatenate(drawn)[None]))
                found = stats.cluster_interval(scored(drawn), CONFIDENCE, RESAMPLES, world)
                gate.append((np.array([found.low]), np.array([found.high])))
            told = (missed(plain, kind.truth), missed(gate, kind.truth))
            row(kind.name, f"{len(sizes)}, of {min(sizes)} to {max(sizes)}", 0.3, *told)
    print()


def power(random: np.random.Generator, worlds: int) -> None:
    print(
        "### Power\n\nShare of worlds, %, in which a criterion with bound 0 passes; a tenth of the items gets worse.\n"
    )
    effects = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
    heads("items", "clusters", "ICC", *(f"effect {effect:+.2f}" for effect in effects), "MDE that is told at 0.1")
    for k, m, icc in (
        (20, 1, 0.0),
        (50, 1, 0.0),
        (100, 1, 0.0),
        (200, 1, 0.0),
        (500, 1, 0.0),
        (25, 4, 0.3),
        (50, 4, 0.3),
    ):
        passed = []
        for effect in effects:
            found = [
                ours(values, random)[0] for values in batches(shares(0.1, 0.1 + effect), random, worlds, k, m, icc)
            ]
            passed.append(f"{100 * float((np.concatenate(found) > 0).mean()):.1f}")
        some = shares(0.1, 0.2).draw(random, 20, k, m, icc)
        told = [stats.cluster_difference(scored(list(each)), RESAMPLES).reach(CONFIDENCE, POWER) for each in some]
        row(k * m, k, icc, *passed, f"{np.mean(told):.2f}")
    print(f"\nMDE: the effect that passes with probability {POWER:g}; mean of 20 worlds.\n")


def results(suites: Mapping[str, Values]) -> dict[str, PlainScores]:
    """Differences [items] of 0/1 scores as a baseline and a candidate."""

    def plain(values: Values) -> PlainScores:
        scores = ((f"{n}", float(value)) for n, value in enumerate(values))
        return PlainScores("", tuple(ItemScore(item=n, cluster=n, scores={"score": v}) for n, v in scores))

    sides = {"base": lambda d: (d < 0).astype(float), "candidate": lambda d: (d > 0).astype(float)}
    return {f"{suite}/{side}": plain(of(d)) for suite, d in suites.items() for side, of in sides.items()}


def family(random: np.random.Generator, worlds: int) -> None:
    """20 probes of 40 items; at the bound, each loses exactly its margin."""
    print("### Twenty probes at once\n")
    heads("truth", "hold, each by itself", "hold, by Holm", "promote")
    probes = [Criterion(name=f"p{n}", kind="non-inferiority", suite=f"s{n}", margin=0.1) for n in range(20)]
    policy = GatePolicy(name="family", resamples=RESAMPLES, criteria=tuple(probes))
    at_bound, better = shares(0.25, 0.15), shares(0.02, 0.3)
    for name, kinds in {
        "all lose exactly the margin": [at_bound] * 20,
        "one loses exactly the margin, the others gain": [at_bound] + [better] * 19,
        "nothing changed but by chance: 5 % each way": [shares(0.05, 0.05)] * 20,
        "all gain": [better] * 20,
    }.items():
        alone = held = promoted = 0
        for _ in range(worlds):
            found, decision, _ = evaluate_policy(
                policy,
                results({f"s{n}": kind.draw(random, 1, 1, 80, 0.0)[0, 0] for n, kind in enumerate(kinds)}),
            )
            alone += any(line.ci_high <= -line.margin for line in found)
            held += decision == "hold"
            promoted += decision == "promote"
        row(name, *(f"{100 * count / worlds:.1f}" for count in (alone, held, promoted)))
    print(f"\n{worlds} worlds, shares in %, 80 items a probe.\n")


def peeking(random: np.random.Generator, worlds: int) -> None:
    print("### Looking all the time\n\nShare of streams, %, with an alarm, at alpha 5 %.\n")
    heads("stream", "looks", "z-test at each look", "e-value at each look", "requests until half have an alarm")
    limit, z = math.log(1 / 0.05), ndtri(0.95)
    looks = np.arange(10, 501, 10)
    for truth in (0.1, 0.15, 0.2):
        errors = (random.random((worlds, 500)) < truth).astype(float)
        so_far = errors.cumsum(axis=1)[:, looks - 1]
        plain = (so_far - looks * 0.1) / np.sqrt(looks * 0.1 * 0.9) > z
        told = np.array([[log_e_at_most(each[:n], 0.1) >= limit for n in looks] for each in errors])
        peeked(f"500 requests, errors at {truth:g}, allowed 0.1", plain, told)
    for champion, challenger in ((0.9, 0.9), (0.9, 0.8), (0.9, 0.7)):
        good = [(random.random((worlds, 500)) < rate).astype(float) for rate in (champion, challenger)]
        rates = [each.cumsum(axis=1)[:, looks - 1] / looks for each in good]
        error = np.sqrt(sum(rate * (1 - rate) for rate in rates) / looks)
        with np.errstate(divide="ignore", invalid="ignore"):
            plain = (rates[0] - rates[1]) / error > z
        told = np.array([[log_e_no_worse(each[:n]) >= limit for n in looks] for each in good[1] - good[0]])
        peeked(f"500 pairs, good answers: champion {champion:g}, challenger {challenger:g}", plain, told)
    print()


def peeked(name: str, plain: Values, told: Values) -> None:
    half = int(np.median(np.where(told.any(axis=1), told.argmax(axis=1) + 1, 10**6)))
    until = "-" if half >= 10**6 else f"{half * 10}"
    row(name, "after every 10", *(f"{100 * float(each.any(axis=1).mean()):.1f}" for each in (plain, told)), until)


def heads(*names: str) -> None:
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))


def row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def unforeseen(random: np.random.Generator, worlds: int) -> None:
    print(
        "### What no interval can foresee\n\n"
        "Scores between 0 and 1 of which one in twenty loses 0.8, the rest nothing but noise.\n"
    )
    heads("items", "worlds in which no such loss is seen, %", "truth below the gate's interval, %")
    for k in (20, 50, 100, 200):
        lost = random.random((worlds, k, 1)) < 0.05
        values = np.where(lost, -0.8, random.normal(0, 0.05, (worlds, k, 1)))
        low = np.concatenate([ours(each, random)[0] for each in np.array_split(values, max(1, worlds // BATCH))])
        row(k, f"{100 * 0.95**k:.1f}", f"{100 * float((low > -0.04).mean()):.1f}")
    print()


SECTIONS = {
    "coverage": (coverage, 1),
    "unforeseen": (unforeseen, 1),
    "power": (power, 1),
    "peeking": (peeking, 8),
    "unequal": (unequal, 4),
    "family": (family, 16),
}
"""Each with the share of the worlds that it draws, 1 / n: those that call the gate world by world draw fewer."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--section", choices=SECTIONS, action="append", help="only this one; may be repeated")
    parser.add_argument("--worlds", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    for name, (section, share) in SECTIONS.items():
        if name in (args.section or SECTIONS):
            section(np.random.default_rng(args.seed), max(1, args.worlds // share))


if __name__ == "__main__":
    main()
