"""Memory of the data line as its data grow: the most that the process held after each step, in a process for each size.

    python benchmarks/line_memory.py [--rows 10000 100000]

Made-up intents of 30 words, no two alike. The detector of personal data, which holds its model whatever the size, is
left out; so is what the operating system keeps of files.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.stages.data import steps
from pipelines.stages.data.protocols import Finding
from tests.support.data import STAGES, DataParts, product_of, write_contract

_WORDS = [f"word{number}" for number in range(5_000)]


class Nothing:
    identity = "finds nothing"

    def find(self, texts: Sequence[str], least: Mapping[str, float] | None = None) -> list[list[Finding]]:
        return [[] for _ in texts]


def peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(count: int) -> None:
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        with (folder / "rows.jsonl").open("w") as rows:
            for number in range(count):
                text = " ".join(chance.choices(_WORDS, k=30))
                rows.write(json.dumps({"text": text, "intent": f"intent {number % 77}"}) + "\n")
        contract = write_contract(folder / "c.yaml", {"text": "string", "intent": "string"})
        source = {"url": str(folder / "rows.jsonl"), "contract": contract}
        mapping = {"mapping": {"user": "{text}", "assistant": {"intent": "{intent}"}}}
        product, parts = product_of(folder, source | mapping), DataParts(folder / "home")
        parts.pii = Nothing()  # type: ignore[assignment]
        told, inputs = [f"{count:,}", f"{peak():.0f}"], []
        for stage in STAGES:
            inputs = [getattr(steps, stage)(parts, product, *inputs)[0]]
            told.append(f"{peak():.0f}")
        print(f"| {' | '.join(told)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.here:
        measure(*chosen.rows)
        return
    print(f"| rows | before, MiB | {' | '.join(STAGES)} |\n|{'-|' * (len(STAGES) + 2)}", flush=True)
    for count in chosen.rows:
        subprocess.run(
            [sys.executable, __file__, "--rows", str(count), "--here"], check=True, env=os.environ | {"PYTHONPATH": "."}
        )


if __name__ == "__main__":
    main()
