"""What row work costs on each batch engine, beside the work itself.

    OMP_NUM_THREADS=1 python benchmarks/engines.py

with the checkout on PYTHONPATH. Made-up texts in batches of 256. Start is until the first result: workers, imports, and
for the first turn on Ray its cluster. What a batch costs is measured with work that hands its batch back. The least of
two turns, the engines in turn. The scrub is counted in the workers' processor seconds, which other work on the machine
changes less than the wall's, without each worker's first batch, which loads the model.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from pipelines.stages.data.scrub_file import BATCH_ROWS, ScrubWork
from pipelines.stages.data.scrub_text import Operator
from resources.batch_engine import open_engine
from resources.pii import PresidioAnalyzer
from tests.support import pii_rows

ENGINES = ("local:1", "local:2", "ray:2")
TURNS = 2
EMPTY, SCRUBBED = 200, 12
"""Batches of each kind of work."""


def same(batch: list[str]) -> list[str]:
    return batch


@dataclass(frozen=True)
class Timed:
    """Work that tells its process and processor seconds beside the result."""

    work: Callable[[list[str]], Any]

    def __call__(self, batch: list[str]) -> tuple[Any, int, float]:
        started = time.process_time()
        return self.work(batch), os.getpid(), time.process_time() - started


def batches(count: int) -> Iterator[list[str]]:
    texts = [row.text for row in pii_rows.generated()]
    for number in range(count):
        start = number * BATCH_ROWS % len(texts)
        yield (texts + texts)[start : start + BATCH_ROWS]


def overhead(engine: Any) -> tuple[float, float]:
    """(seconds to the first result, seconds a batch after it) where the work is nothing."""
    started = time.perf_counter()
    results = engine.map(same, batches(EMPTY))
    next(results)
    first = time.perf_counter()
    for _ in results:
        pass
    return first - started, (time.perf_counter() - first) / (EMPTY - 1)


def scrubbed(engine: Any) -> tuple[float, str]:
    """(processor seconds of a batch, digest of all results)."""
    digest, loaded, seconds = hashlib.sha256(), set(), []
    for result, process, took in engine.map(Timed(ScrubWork(PresidioAnalyzer(), Operator.REDACT)), batches(SCRUBBED)):
        digest.update(json.dumps(result).encode())
        if process in loaded:
            seconds.append(took)
        loaded.add(process)
    return median(seconds), digest.hexdigest()


def main() -> None:
    engines = {name: open_engine(name) for name in ENGINES}
    empty: dict[str, list[tuple[float, float]]] = {name: [] for name in ENGINES}
    for _ in range(TURNS):
        for name, engine in engines.items():
            empty[name].append(overhead(engine))
    full = {name: scrubbed(engine) for name, engine in engines.items()}
    print("| engine | first start, s | next start, s | a batch costs, ms | scrub of a batch, processor seconds |")
    print("|-|-|-|-|-|")
    for name in ENGINES:
        (first, _), (later, _) = empty[name]
        batch = min(each for _, each in empty[name])
        print(f"| {name} | {first:.2f} | {later:.2f} | {batch * 1000:.1f} | {full[name][0]:.2f} |")
    print("same results:", len({digest for _, digest in full.values()}) == 1)


if __name__ == "__main__":
    main()
