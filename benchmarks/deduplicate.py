"""What finding copies costs beside the bare MinHash library, and whether it finds those that were planted.

    python benchmarks/deduplicate.py [--rows 20000] [--in FILE --field NAME]

The bare library (rensa) gets the same shingles, sketches them with as many permutations, asks the LSH index of as many
bands for each text and adds it: no exact check, no survivors, nothing recorded. Both also run from the texts, which
adds the cutting into words and shingles to each. CPU seconds, each the best of 15 runs, taken in turns; of the ratios
the median over the turns, which other work on the machine moves least.
"""

import argparse
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rensa import RMinHash, RMinHashLSH

from pipelines.stages.data import near
from pipelines.stages.data.deduplicate import THRESHOLD
from pipelines.stages.data.plain import Report, rows, text_of

BANDS, ROUNDS = 32, 15


def generated(count: int, seed: int = 7) -> list[str]:
    """Texts of 20 to 80 words of a vocabulary of 5000, a fifth of them near copies (one word in thirty changed) and a
    tenth exact copies in other writing."""
    draw = random.Random(seed)
    vocabulary = [f"w{number}" for number in range(5000)]
    texts: list[str] = []
    for _ in range(count):
        kind = draw.random() if texts else 1.0
        words = draw.choice(texts).split() if kind < 0.3 else draw.choices(vocabulary, k=draw.randint(20, 80))
        if kind < 0.2:
            words[draw.randrange(len(words))] = draw.choice(vocabulary)
            texts.append(" ".join(words))
        else:
            texts.append(" ".join(words).upper() + "!" if kind < 0.3 else " ".join(words))
    return texts


def bare(shingled: Sequence[list[str]]) -> int:
    index = RMinHashLSH(THRESHOLD, near._PERMUTATIONS, BANDS)
    candidates = 0
    for number, members in enumerate(shingled):
        sketch = RMinHash(near._PERMUTATIONS, near._SEED)
        sketch.update(members)
        candidates += len(index.query(sketch))
        index.insert(number, sketch)
    return candidates


def ours(texts: Sequence[str]) -> int:
    return sum(copy is not None for copy in near.copies(((text, text) for text in texts), THRESHOLD))


def shingled(texts: Sequence[str]) -> list[list[str]]:
    return [near.shingles(near.words(text)) for text in texts]


def timed(works: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            started = time.process_time()
            work()
            taken[name].append(time.process_time() - started)
    return taken


def compare(title: str, texts: list[str]) -> None:
    cut = shingled(texts)
    seconds = timed(
        {
            "cut": lambda: shingled(texts),
            "library": lambda: bare(cut),
            "library with cutting": lambda: bare(shingled(texts)),
            "ours": lambda: ours(texts),
        }
    )
    turns = list(zip(*seconds.values(), strict=True))
    print(f"{title}: {len(texts)} texts, {ours(texts)} copies")
    for name, taken in seconds.items():
        print(f"  {name:<21} {min(taken):6.3f} s  {len(texts) / min(taken):9.0f} texts/s")
    from_texts = median(mine / both for _, _, both, mine in turns)
    from_shingles = median((mine - cutting) / library for cutting, library, _, mine in turns)
    print(f"  from texts, ours / library with cutting: {from_texts:.2f}")
    print(f"  from shingles, (ours - cut) / library:   {from_shingles:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--in", dest="source", type=Path)
    parser.add_argument("--field", default="text")
    chosen = parser.parse_args()
    compare("generated", generated(chosen.rows))
    if chosen.source:
        found = rows(chosen.source, Report())
        compare(chosen.source.name, [text_of(chosen.source, line, row, chosen.field) for line, row in found])


if __name__ == "__main__":
    main()
