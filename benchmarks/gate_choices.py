"""What the gate might do otherwise, simulated: probes that decide nothing left out of Holm's family, and sign flips
where clusters are few.

    python benchmarks/gate_choices.py [--worlds 400] [--seed 1]

A world is a draw of scores whose truth is known; p-values and verdicts on it are the gate's own. Prints Markdown.
"""

import argparse
from collections.abc import Callable

import numpy as np
from gate_simulation import RESAMPLES, TAIL, Values, heads, row, scored

from evals import stats
from evals.criteria import Measured, compare, settled
from evals.policy import Criterion, GatePolicy

PROBES, ITEMS, CHANCE, MARGIN = 20, 80, 0.25, 0.1
SIZES = (5, 7, 10, 12)


def silent(random: np.random.Generator, worlds: int) -> None:
    """The candidate loses exactly the margin on every probe but the first, on which it may lose more."""
    print("### Probes that decide nothing\n")
    heads("base", "candidate", "probes that decide nothing", "hold, all in the family", "hold, those left out")
    for base, first in ((0.25, None), (0.3, None), (0.35, None), (0.4, None), (0.25, (0.9, 0.6)), (0.25, (0.9, 0.5))):
        truths = [first or (base, base - MARGIN)] + [(base, base - MARGIN)] * (PROBES - 1)
        quiet = whole = fewer = 0
        for _ in range(worlds):
            found = [_probed(random, f"p{n}", *truth) for n, truth in enumerate(truths)]
            speaking = [each for each in found if not each.silent]
            quiet += len(found) - len(speaking)
            whole += any(each.outcome == "fail" for each in settled(found, POLICY))
            fewer += any(each.outcome == "fail" for each in settled(speaking, POLICY))
        named = f"{first[0]:g}, then {base:g}" if first else f"{base:g}"
        told = f"{first[1]:g}, then {base - MARGIN:g}" if first else f"{base - MARGIN:g}"
        shares = (100 * count / worlds for count in (quiet / PROBES, whole, fewer))
        row(named, told, *(f"{share:.1f}" for share in shares))
    print(f"\n{worlds} worlds, shares in %; {PROBES} probes of {ITEMS} items, chance {CHANCE:g}, margin {MARGIN:g}.\n")


POLICY = GatePolicy(
    name="probes",
    resamples=RESAMPLES,
    criteria=(Criterion(name="probe", kind="non-inferiority", suite="s", margin=MARGIN, chance=CHANCE),),
)


def _probed(random: np.random.Generator, name: str, base: float, candidate: float) -> Measured:
    """One probe; base and candidate answer independently of each other, which moves differences most."""
    sides = [scored((random.random((ITEMS, 1)) < truth).astype(float)) for truth in (base, candidate)]
    return compare(POLICY.criteria[0].model_copy(update={"name": name}), POLICY, *sides, None)


# Differences [worlds, clusters] whose true mean is minus the margin: a hold is false.
AT_BOUND: dict[str, Callable[[np.random.Generator, tuple[int, int]], Values]] = {
    "even: normal": lambda random, shape: np.clip(random.normal(-MARGIN, 0.1, shape), -1, 1),
    "0/1: 55 % of clusters lose all, 45 % gain all": lambda random, shape: np.where(
        random.random(shape) < (1 + MARGIN) / 2, -1.0, 1.0
    ),
    "small losses, and a large gain in one of ten": lambda random, shape: np.where(
        random.random(shape) < 0.9, -0.2, 0.8
    ),
}


def few(random: np.random.Generator, worlds: int) -> None:
    print("### Few clusters\n\nFalse holds, %, at 2.5 % (alone) and at 2.5 % / 20 (the first of twenty).\n")
    heads("differences", "clusters", "sign flips, alone", "first of twenty", "the gate, alone", "first of twenty")
    for name, draw in AT_BOUND.items():
        for clusters in SIZES:
            values = draw(random, (worlds, clusters))
            flips = _sign_flip_p(values + MARGIN)
            gate = [stats.cluster_difference(scored(each[:, None])).p_at_least(-MARGIN) for each in values]
            rates = [100 * float((p <= limit).mean()) for p in (flips, np.array(gate)) for limit in (TAIL, TAIL / 20)]
            row(name, clusters, *(f"{rate:.1f}" for rate in rates))
    print("\nThe p-value where every cluster loses all: sign flips, and the least that an honest test can give.\n")
    heads("clusters", "sign flips", f"honest, margin {MARGIN:g}")
    for clusters in SIZES:
        row(clusters, f"{0.5**clusters:.4f}", f"{((1 + MARGIN) / 2) ** clusters:.4f}")
    print()


def _sign_flip_p(values: Values) -> Values:
    """Exact one-sided p-values [worlds] of "the mean is at least 0", which take differences [worlds, clusters] to lie
    evenly about it."""
    clusters = values.shape[1]
    signs = 1 - 2 * ((np.arange(2**clusters)[:, None] >> np.arange(clusters)) & 1)
    p: Values = (values @ signs.T <= values.sum(axis=1, keepdims=True) + 1e-12).mean(axis=1)
    return p


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    silent(np.random.default_rng(args.seed), args.worlds)
    few(np.random.default_rng(args.seed), 5 * args.worlds)


if __name__ == "__main__":
    main()
