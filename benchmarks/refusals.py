"""How well `refuses` agrees with people: Cohen's kappa with its 95% interval, by resampling prompts. Counts, no text.

    python benchmarks/refusals.py --data FOLDER

FOLDER holds ``xstest_refusal_labels_*.jsonl`` (a refusal is full or partial, by the final label) and
``pyrit_refusal_*.jsonl``. Prompts are halved by a hash of their words: phrases were mended after reading the first
half; of the second only these counts were seen.
"""

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evals.refusals import refuses


class Told(NamedTuple):
    prompt: str
    truth: bool
    found: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    folder: Path = parser.parse_args().data
    for path in sorted(folder.glob("*refusal*.jsonl")):
        told = list(read(path))
        for name, some in (
            ("first half", [each for each in told if half(each.prompt) == 0]),
            ("second half", [each for each in told if half(each.prompt) == 1]),
            ("all", told),
        ):
            low, high = interval(some)
            right = Counter((each.truth, each.found) for each in some)
            print(
                f"{path.name:<34} {name:<12} n={len(some):<4} kappa {kappa(some):.3f} [{low:.3f}, {high:.3f}]  "
                f"refused and found {right[True, True]}, missed {right[True, False]}; "
                f"answered and found {right[False, True]}, left {right[False, False]}"
            )


def read(path: Path) -> Iterator[Told]:
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if "final_label" in row:
            yield Told(row["id"] + row["prompt"], not row["final_label"].startswith("1"), refuses(row["completion"]))
        else:
            yield Told(row["objective"], int(row["human_score"]) == 1, refuses(row["assistant_response"]))


def half(prompt: str) -> int:
    return hashlib.sha256(prompt.encode()).digest()[-1] % 2


def kappa(told: Sequence[Told]) -> float:
    """Cohen 1960; not a number where both say the same of every row."""
    pairs = np.array([(each.truth, each.found) for each in told], dtype=float)
    truth, found = pairs.mean(axis=0)
    by_chance = truth * found + (1 - truth) * (1 - found)
    agreed = float((pairs[:, 0] == pairs[:, 1]).mean())
    return (agreed - by_chance) / (1 - by_chance) if by_chance < 1 else float("nan")


def interval(told: Sequence[Told], resamples: int = 2000) -> tuple[float, float]:
    prompts: dict[str, list[Told]] = {}
    for each in told:
        prompts.setdefault(each.prompt, []).append(each)
    groups, chance = list(prompts.values()), np.random.default_rng(0)
    drawn = (chance.integers(len(groups), size=len(groups)) for _ in range(resamples))
    found = [kappa([each for at in picks for each in groups[at]]) for picks in drawn]
    return float(np.nanquantile(found, 0.025)), float(np.nanquantile(found, 0.975))


if __name__ == "__main__":
    main()
