"""How often a canary with the traffic errs, and how soon it tells: many simulated ones through its own rule.

    OMP_NUM_THREADS=1 python -m benchmarks.canary_simulation [--canaries 200] [--seed 1]

People come one after another; a share of them, by the step, meets the challenger. Good answers of the champion: 99.5 %
answered, 97 % valid JSON, 95 % in time, 90 % no refusal, each by itself; all four sink by a fifth of what is bad, and
rise again, within a day of 4,000 people. The shipped rule is asked after every 50 people, which is oftener than the
line asks on a busy day. `naive` asks a two-proportion test of 5 % for each signal as often, and reverts at the first
that says worse.

Then A/A canaries with 300 people who come again and again, some much oftener than others (Pareto, shape 1.2), each with
valid JSON at a rate of their own (Beta, mean 0.9, standard deviation 0.17): with one answer a person, as the line
counts, and with all of them. Each ends after 3,000 requests, all in the second step. Prints Markdown.
"""

import argparse
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from statistics import median
from typing import NamedTuple

from evals.stats import Score, wilson
from pipelines.recipes.product import Rollout, Signal
from pipelines.stages.release.rollout import First, judge

GOOD: Mapping[Signal, float] = {"answered": 0.995, "json_valid": 0.97, "in_time": 0.95, "not_refused": 0.9}
DAY = 4000
LOOK = 50
PEOPLE, REQUESTS = 300, 3000
CASES: Mapping[str, Mapping[Signal, float]] = {
    "no difference (A/A)": {},
    "better: 2 points fewer refusals": {"not_refused": -0.02},
    "valid JSON 10 points lower": {"json_valid": 0.10},
    "valid JSON 5 points lower, its margin": {"json_valid": 0.05},
    "valid JSON 2 points lower": {"json_valid": 0.02},
    "late 10 points more": {"in_time": 0.10},
    "refuses 15 points more": {"not_refused": 0.15},
    "fails 3 points more": {"answered": 0.03},
}


class Canary(NamedTuple):
    decision: str
    answers: int
    naive: bool
    """Whether a test that may be asked once, asked each time, would have reverted it."""


def people(chance: random.Random, loses: Mapping[Signal, float], share: list[float]) -> Iterator[First]:
    number = 0
    while True:
        challenger = chance.random() < share[0]
        tide = 0.2 * math.sin(2 * math.pi * number / DAY) ** 2
        rates = {name: rate - (1 - rate) * tide - challenger * loses.get(name, 0.0) for name, rate in GOOD.items()}
        yield First(challenger, {name: float(chance.random() < rate) for name, rate in rates.items()})
        number += 1


def run(rule: Rollout, loses: Mapping[Signal, float], seed: int) -> Canary:
    share = [rule.steps[0]]
    seen: list[First] = []
    naive = False
    for first in people(random.Random(seed), loses, share):
        seen.append(first)
        if len(seen) % LOOK == 0:
            found = judge(rule, seen)
            naive = naive or any(looks_worse(seen, name) for name in rule.margins)
            if found.decision != "go on":
                told = "reverted" if "worse in" in found.reason else "did not tell"
                return Canary("promoted" if found.decision == "promote" else told, found.answers, naive)
            share[0] = rule.steps[found.step]
    raise AssertionError


def looks_worse(seen: list[First], name: Signal) -> bool:
    """One-sided, 5 %, by the normal approximation, once each side has 30 answers."""
    sides = [[first.good[name] for first in seen if first.challenger is side] for side in (True, False)]
    counts = [len(side) for side in sides]
    if min(counts) < 30:
        return False
    ours, theirs = (sum(side) / len(side) for side in sides)
    pooled = (sum(sides[0]) + sum(sides[1])) / sum(counts)
    scatter = math.sqrt(pooled * (1 - pooled) * (1 / counts[0] + 1 / counts[1]))
    return scatter > 0 and (ours - theirs) / scatter < -1.645


def revisited(rule: Rollout, once: bool, seed: int) -> bool:
    """Whether an A/A canary with people who come again is reverted."""
    chance = random.Random(seed)
    rates = [chance.betavariate(1.8, 0.2) for _ in range(PEOPLE)]
    often = [chance.paretovariate(1.2) for _ in range(PEOPLE)]
    challenged = [chance.random() < 0.5 for _ in range(PEOPLE)]
    met: set[int] = set()
    seen: list[First] = []
    for number, who in enumerate(chance.choices(range(PEOPLE), often, k=REQUESTS), start=1):
        if not (once and who in met):
            met.add(who)
            seen.append(First(challenged[who], {"json_valid": float(chance.random() < rates[who])}))
        if number % LOOK == 0 and "worse in" in judge(rule, seen).reason:
            return True
    return False


def rate(hits: int, of: int) -> str:
    found = wilson([Score(str(n), str(n), float(n < hits)) for n in range(of)])
    return f"{found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--canaries", type=int, default=200, help="of each case")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    rule = Rollout()
    print("| challenger | promoted | reverted | did not tell | answers to a decision, median | reverted by naive |")
    print("|---|---|---|---|---|---|")
    for case, loses in CASES.items():
        found = [run(rule, loses, asked.seed * 100_000 + n) for n in range(asked.canaries)]
        counts = Counter(each.decision for each in found)
        rates = " | ".join(rate(counts[name], len(found)) for name in ("promoted", "reverted", "did not tell"))
        answers = median(each.answers for each in found)
        naive = rate(sum(each.naive for each in found), len(found))
        print(f"| {case} | {rates} | {answers:.0f} | {naive} |", flush=True)
    print("\n| people come again | reverted though equal |\n|---|---|")
    for once, words in ((True, "one answer a person"), (False, "every answer")):
        hits = sum(revisited(rule, once, asked.seed * 100_000 + n) for n in range(asked.canaries))
        print(f"| {words} | {rate(hits, asked.canaries)} |", flush=True)


if __name__ == "__main__":
    main()
