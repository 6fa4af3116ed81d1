"""What keeping every answer in words costs an answer: the gateway before a model server that answers at once, asked
by one client in turn with and without `keep`.

    python -m benchmarks.sealing
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

from pipelines.recipes.product import Keep
from tests.support.gateway import Installation, installed

TURNS, ASKED = 10, 40


def times(home: Installation) -> list[float]:
    found = []
    for _ in range(ASKED):
        began = time.perf_counter()
        home.ask().raise_for_status()
        found.append(time.perf_counter() - began)
    return found


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as two,
        installed(Path(one)) as without,
        installed(Path(two), keep=Keep(share=1)) as sealing,
    ):
        homes = {"without": without, "sealing": sealing}
        taken: dict[str, list[float]] = {name: [] for name in homes}
        for home in homes.values():
            home.promote("a")
            times(home)
        for _ in range(TURNS):
            for name, home in homes.items():
                taken[name] += times(home)
    for name, each in taken.items():
        p95 = quantiles(each, n=20)[-1]
        sys.stdout.write(f"{name}: n={len(each)} median {1e6 * median(each):.0f} us, p95 {1e6 * p95:.0f} us\n")


if __name__ == "__main__":
    main()
