"""How soon the meters see what changed, and how often they cry wolf: made-up months, window by window, through the
meters and the policy that production runs.

    python -m benchmarks.meters              # the table of docs/benchmarks.md
    python -m benchmarks.meters --tails      # what stable months reach, by meter: for whoever sets thresholds

A month is a reference and 60 windows. Worlds that change do so after ten. Meaning is read of made-up vectors: topics
about twelve centres.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evals.shift import energy_p
from pipelines.stages.signals.costs import Prices
from pipelines.stages.signals.drift import histories
from pipelines.stages.signals.meters import History, bar
from pipelines.stages.signals.policy import SignalPolicy, load_policy
from pipelines.stages.signals.traces import Traffic, Window

POLICY = load_policy()
PRICES = Prices(currency="EUR", gpu_minute=0, cpu_minute=0, prompt_1000=0.2, completion_1000=0.6, memory_gib_hour=0)
MONTH, BEFORE = 60, 10
TOPICS, DIMENSIONS = 12, 384
LENGTHS = dict(zip(["<64", "<96", "<128", "<192", "<256", "<384"], [0.1, 0.2, 0.25, 0.25, 0.15, 0.05], strict=True))
TOKENS = dict(zip(["<16", "<24", "<32", "<48", "<64"], [0.15, 0.35, 0.3, 0.15, 0.05], strict=True))
TOOLS = {"none": 0.2} | {f"tool-{i}": 0.1 for i in range(8)}
LABELS = {f"label-{i}": 0.125 for i in range(8)}
LANGUAGES = {"en": 0.94, "de": 0.03, "und": 0.03}
DIGITS = dict(zip(["<0.01", "<0.05", "<0.15", "0.15+"], [0.5, 0.3, 0.15, 0.05], strict=True))


class World(NamedTuple):
    """What is true of a window. ``topic``: the share of questions about something new."""

    topic: float = 0.0
    invalid: float = 0.03
    bad: float = 0.02
    corrected: float = 0.01
    new_label: float = 0.0
    slower: float = 1.0
    refused: float = 0.05
    toxic: float = 0.005


def slow_decay(window: int) -> World:
    """Bad ratings and corrections triple over thirty windows."""
    share = min(1.0, window / 30)
    return World(bad=0.02 + 0.04 * share, corrected=0.01 + 0.02 * share)


WORLDS: dict[str, Callable[[int], World]] = {
    "topic shift: 30 % new questions": lambda _: World(topic=0.3),
    "topic shift: 60 % new questions": lambda _: World(topic=0.6),
    "slow decay: bad ratings and corrections triple over 30 windows": slow_decay,
    "new label: 20 % of what reviewers label": lambda _: World(new_label=0.2),
    "JSON breaks: invalid 3 % to 15 %": lambda _: World(invalid=0.15),
    "slow answers: all take half as long again": lambda _: World(slower=1.5),
    "refusals 5 % to 25 %": lambda _: World(refused=0.25),
}


class Month:
    """Draws windows. ``meaning``: with vectors, which are what takes time."""

    def __init__(self, seed: int, meaning: bool) -> None:
        self.dice = np.random.default_rng(seed)
        self.meaning = meaning
        centres = np.random.default_rng(10_000 + seed).normal(size=(TOPICS + 1, DIMENSIONS))
        self.centres = centres / np.linalg.norm(centres, axis=1, keepdims=True)
        self.first = self._vectors(0.0), self._vectors(0.0)

    def answers(self, world: World) -> Window:
        n = POLICY.window
        latency = self.dice.lognormal(6.5, 0.4, n) * world.slower
        first = self.dice.lognormal(4.5, 0.4, n) * world.slower
        labelled = self._drawn(LABELS, 5)
        new = int(self.dice.binomial(5, world.new_label))
        failed = int(self.dice.binomial(n, 0.005))
        return Window(
            answers=n,
            counts={
                "prompt_chars": self._drawn(LENGTHS, n),
                "answer_tokens": self._drawn(TOKENS, n),
                "tool": self._drawn(TOOLS, n),
                "json_valid": self._of(n, world.invalid, "invalid", "valid"),
                "latency_ms": _powers(latency),
                "first_token_ms": _powers(first),
                "errors": {"hit": failed, "miss": n},
                "bad_ratings": self._of(n, world.bad),
                "corrections": self._of(n, world.corrected),
                "label": labelled | ({"new": new} if new else {}),
            },
            values={
                "prompt_tokens": float(self.dice.normal(90, 4) * n),
                "completion_tokens": float(self.dice.normal(24, 2) * n),
                "label_age_days": 10.0,
            },
        )

    def exchanges(self, world: World) -> Window:
        n, values = POLICY.exchanges, {}
        if self.meaning:
            questions, answers = self._vectors(world.topic), self._vectors(0.0)
            values = {
                "question_meaning": energy_p(self.first[0], questions),
                "answer_meaning": energy_p(self.first[1], answers),
            }
        return Window(
            answers=n,
            counts={
                "language": self._drawn(LANGUAGES, n),
                "digits": self._drawn(DIGITS, n),
                "refusals": self._of(n, world.refused),
                "toxicity": self._of(n, world.toxic),
            },
            values=values,
        )

    def _vectors(self, new: float) -> NDArray[np.float32]:
        n = POLICY.exchanges
        topic = np.where(self.dice.random(n) < new, TOPICS, self.dice.integers(0, TOPICS, n))
        found = self.centres[topic] + self.dice.normal(0, 0.8 / np.sqrt(DIMENSIONS), (n, DIMENSIONS))
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)

    def _drawn(self, shares: dict[str, float], n: int) -> dict[str, int]:
        total = sum(shares.values())
        counts = self.dice.multinomial(n, [each / total for each in shares.values()])
        return {name: int(count) for name, count in zip(shares, counts, strict=True) if count}

    def _of(self, n: int, share: float, hit: str = "hit", miss: str = "miss") -> dict[str, int]:
        count = int(self.dice.binomial(n, share))
        return {hit: count, miss: n - count}


def month(seed: int, change: Callable[[int], World] | None, meaning: bool, policy: SignalPolicy) -> dict[str, History]:
    """What each meter reads of a month."""
    drawn = Month(seed, meaning)
    worlds = (
        [World()] * (MONTH + 1)
        if change is None
        else [World()] * (BEFORE + 1) + [change(i) for i in range(1, MONTH - BEFORE + 1)]
    )
    answers = [drawn.answers(each) for each in worlds]
    exchanges = [drawn.exchanges(each) for each in worlds]
    rows = 2000
    learned = Window(
        answers=rows,
        counts={
            "tool": {k: int(v * rows) for k, v in TOOLS.items()},
            "label": {k: int(v * rows) for k, v in LABELS.items()},
        },
    )
    found = histories(_traffic(answers), policy, _traffic(exchanges), learned, PRICES)
    return {name: each for name, each in found.items() if isinstance(each, History)}


def first_alarm(read: dict[str, History]) -> tuple[int, str] | None:
    """The window (from 1) of the first alarm of any meter, and whose it was."""
    alarms = [(each.lasts.index(True) + 1, name) for name, each in read.items() if True in each.lasts]
    return min(alarms, default=None)


def tails(months: int) -> Iterator[str]:
    """The most that stable months reach, by meter: of the score that ``sustained`` of ``windows`` hold, and of the
    CUSUM."""
    reached: dict[str, list[tuple[float, float]]] = {}
    for seed in range(months):
        for name, each in month(seed, None, seed < 300, POLICY).items():
            scores = [one.score for one in each.windows]
            k, n = POLICY.sustained, POLICY.windows
            held = [sorted(scores[max(0, i - n + 1) : i + 1])[-k] for i in range(k - 1, len(scores))]
            reached.setdefault(name, []).append((max(held, default=0.0), max(each.rises, default=0.0)))
    for name, pairs in reached.items():
        held, sums = (np.quantile([pair[i] for pair in pairs], [0.9, 0.99, 0.997, 1]).round(2) for i in (0, 1))
        yield f"{name:18} bar {bar(POLICY.meters[name]):<6g} held {held}  rises {sums}"


def table(seeds: int) -> Iterator[str]:
    stable = [first_alarm(month(100_000 + seed, None, True, POLICY)) for seed in range(seeds)]
    wolf = [each for each in stable if each]
    names = ", ".join(sorted({name for _, name in wolf})) or "none"
    yield f"stable: {len(wolf)} of {seeds} months of {MONTH} windows with an alarm ({names})"
    yield "| what changes | seen | mean delay, windows | 95 % within | first seen by |"
    yield "|-|-|-|-|-|"
    for title, change in WORLDS.items():
        found = [first_alarm(month(200_000 + seed, change, "topic" in title, POLICY)) for seed in range(seeds)]
        seen = [(at - BEFORE, name) for at, name in filter(None, found) if at > BEFORE]
        early = sum(at <= BEFORE for at, _ in filter(None, found))
        delays = sorted(at for at, _ in seen) or [0]
        by = sorted({name for _, name in seen}, key=lambda n: -sum(name == n for _, name in seen))
        worst = delays[int(np.ceil(0.95 * len(delays))) - 1]
        yield f"| {title} | {len(seen)} of {seeds - early} | {np.mean(delays):.1f} | {worst} | {', '.join(by[:3])} |"


def _powers(times: NDArray[np.float64]) -> dict[str, int]:
    powers, counts = np.unique(np.ceil(np.log(np.maximum(times, 1)) / np.log(1.1)).astype(int), return_counts=True)
    return {str(power): int(count) for power, count in zip(powers, counts, strict=True)}


def _traffic(windows: list[Window]) -> Traffic:
    return Traffic(product="p", release=None, policy=POLICY.digest, reference=windows[0], current=tuple(windows[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--tails", action="store_true")
    chosen = parser.parse_args()
    began = time.process_time()
    for line in tails(chosen.seeds) if chosen.tails else table(chosen.seeds):
        print(line, flush=True)
    print(f"{time.process_time() - began:.0f} s of one core")


if __name__ == "__main__":
    main()
