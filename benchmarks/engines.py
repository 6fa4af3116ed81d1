"""What row work costs on each batch engine, beside the work itself.

    OMP_NUM_THREADS=1 python benchmarks/engines.py

with the checkout on PYTHONPATH. Made-up texts in batches of 256. Start is until the first result: workers, imports, and
for the first turn on Ray its cluster. What a batch costs is measured with work that hands its batch back; rows a second
with the scrub, after the first batches. The least of two turns, the engines in turn.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from pipelines.stages.data.scrub_file import BATCH_ROWS, ScrubWork
from pipelines.stages.data.scrub_text import Operator
from resources.batch_engine import open_engine
from resources.pii import PresidioAnalyzer
from tests.support import pii_rows

ENGINES = ("local:1", "local:2", "ray:2")
TURNS = 2
WARM = 4
"""Batches that are left out of the speed: by then each worker has loaded the model."""


def same(batch: list[str]) -> list[str]:
    return batch


def batches(count: int) -> Iterator[list[str]]:
    texts = [row.text for row in pii_rows.generated()]
    for number in range(count):
        start = number * BATCH_ROWS % len(texts)
        yield (texts + texts)[start : start + BATCH_ROWS]


def _bytes(result: Any) -> bytes:
    return json.dumps(result).encode()


def timed(engine: Any, work: Callable[[list[str]], Any], count: int) -> tuple[float, float, str]:
    """(seconds to the first result, seconds a batch after the first ones, digest of all results)."""
    started = time.perf_counter()
    results = engine.map(work, batches(count))
    digest = hashlib.sha256(_bytes(next(results)))
    start = time.perf_counter() - started
    for result in islice(results, WARM - 1):
        digest.update(_bytes(result))
    warm = time.perf_counter()
    for result in results:
        digest.update(_bytes(result))
    return start, (time.perf_counter() - warm) / (count - WARM), digest.hexdigest()


def main() -> None:
    engines = {name: open_engine(name) for name in ENGINES}
    scrub = ScrubWork(PresidioAnalyzer(), Operator.REDACT)
    empty: dict[str, list[tuple[float, float, str]]] = {name: [] for name in ENGINES}
    full: dict[str, list[tuple[float, float, str]]] = {name: [] for name in ENGINES}
    for turn in range(TURNS):
        for name, engine in engines.items():
            empty[name].append(timed(engine, same, 200))
            full[name].append(timed(engine, scrub, 16))
            print(f"turn {turn + 1}, {name}: {empty[name][-1][:2]}, {full[name][-1][:2]}", flush=True)
    print("| engine | first start, s | later starts, s | a batch costs, ms | scrub, rows a second |")
    for name in ENGINES:
        later = min(start for start, *_ in empty[name][1:])
        batch, row = min(each for _, each, _ in empty[name]), min(each for _, each, _ in full[name]) / BATCH_ROWS
        print(f"| {name} | {empty[name][0][0]:.1f} | {later:.1f} | {batch * 1000:.1f} | {1 / row:.0f} |")
    print("same results:", len({digest for turns in full.values() for *_, digest in turns}) == 1)


if __name__ == "__main__":
    main()
