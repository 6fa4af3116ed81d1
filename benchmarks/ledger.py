"""The ledger with a million rows: how long its answers take, and what it and the digests cost the data plane.

    python benchmarks/ledger.py [--rows 1000000] [--postgres] [--data FOLDER]

First ROWS made-up ledger entries, half records and half rows made from them, of a subject for every ten records, beside
three data sets that name ROWS / 2 rows each; then each question 50 times about rows and subjects drawn (seed 1).
``--postgres`` asks a PostgreSQL server of its own instead of SQLite. With ``--data`` the line runs on
FOLDER/sft/banking77_train.jsonl, and the time in ledger, names, Merkle roots and checks is held against the whole.
"""

import argparse
import gc
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from data_contracts.digests import Digest, LinesDigest, sha256_bytes
from data_contracts.ledger import LedgerEntry, Origin
from data_contracts.manifests import Counts, DatasetManifest
from pipelines.recipes.product import load_product
from pipelines.settings import Settings
from pipelines.stages.data import item, mix, rows, split, steps
from pipelines.stages.data.item import Item
from pipelines.stages.release.trace import trace, trace_subject
from pipelines.wiring import Line
from resources import dataset_store
from resources.dataset_store import ParquetDatasetStore
from resources.keyring import SqliteKeyring
from resources.ledger import SqlLedger
from tests.support.data import ORIGIN
from tests.support.postgres import new_database, postgres

PRODUCT = Path(__file__).parent / "real" / "banking77.yaml"
ASKED = 50
_WRITING = "rows written as JSON"
"""Any line writes its rows; this one in canonical form, so that they can be named by what is stored."""


def name(kind: str, number: int) -> Digest:
    return sha256_bytes(f"{kind} {number}".encode())


def entries(records: int, subject: Callable[[str], str]) -> Iterator[LedgerEntry]:
    """Twenty sources; every second has a last day, one after the other."""
    some = [
        Origin(
            source=f"s3://bucket/source-{source}.jsonl",
            source_digest=name("source", source),
            contract=name("contract", source),
            licence="CC-BY-4.0",
            consent="consent",
            purposes=("own-model",),
            retain_until=date(2031, 1, 1) + timedelta(days=source) if source % 2 else None,
            tier="gold",
        )
        for source in range(20)
    ]
    for number in range(records):
        who, origin = subject(f"subject:person {number // 10}"), some[number % 20]
        yield LedgerEntry(row=name("record", number), subject=who, origin=origin)
        yield LedgerEntry(row=name("row", number), subject=who, origin=origin, parents=(name("record", number),))


def data_set(line: Line, stage: str, kind: str, count: int, inputs: tuple[Digest, ...]) -> DatasetManifest:
    root = line.datasets.write(Item(name(kind, number), "s", ORIGIN, "{}") for number in range(count)).root
    manifest = DatasetManifest(
        product="bench",
        stage=stage,
        root=root,
        counts=Counts(rows_in=count, rows_out=count),
        inputs=inputs,
        synthetic_share=0,
        action_key=name(stage, 0),
    )
    line.store.put_manifest(manifest)
    line.ledger.record_set(root, manifest.digest)
    return manifest


def asked(title: str, questions: list[Callable[[], Any]]) -> None:
    times = []
    for question in questions:
        started = time.perf_counter()
        found = question()
        times.append(time.perf_counter() - started)
    told = len(found) if isinstance(found, list) else type(found).__name__
    print(f"| {title} | {statistics.median(times) * 1000:.0f} | {max(times) * 1000:.0f} | {told} |", flush=True)


def answers(count: int, on_postgres: bool) -> None:
    chance = random.Random(1)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = new_database(stack.enter_context(postgres())) if on_postgres else ""
        line = Line(Settings(home=home, ledger=url))
        made = list(entries(count // 2, line.keyring.subject))
        started = time.perf_counter()
        for start in range(0, len(made), 100_000):
            line.ledger.record(made[start : start + 100_000])
        seconds = time.perf_counter() - started
        raw = data_set(line, "raw", "record", count // 2, ())
        for stage, kind in (("ledgered", "row"), ("splits", "split")):
            data_set(line, stage, kind, count // 2, (raw.digest,))
        size = sum(path.stat().st_size for path in home.glob("ledger.sqlite*"))
        if on_postgres:
            with line.ledger.database.session() as session:
                ((size,),) = session.query("select pg_database_size(current_database())")
        store = "PostgreSQL" if on_postgres else "SQLite"
        print(f"{store}: {len(made)} entries in {seconds:.1f} s, {size / 1e6:.0f} MB", flush=True)
        print("| question | median ms | worst ms | answer |\n|---|---|---|---|")
        numbers = [chance.randrange(count // 2) for _ in range(ASKED)]
        asked("a row's entry", [lambda n=n: line.ledger.entry(name("row", n)) for n in numbers])
        asked(
            "where a row comes from, all that holds it", [lambda n=n: trace(line, name("record", n)) for n in numbers]
        )
        people = [f"subject:person {n // 10}" for n in numbers]
        asked("rows of a subject", [lambda p=p: line.ledger.rows_of(line.keyring.subject(p)) for p in people])
        asked(
            "all that holds a subject's rows",
            [lambda p=p: trace_subject(line, p.removeprefix("subject:")) for p in people],
        )
        asked("what expires this month", [lambda: line.ledger.expiring(date(2031, 2, 1))] * ASKED)


class Clock:
    """Processor seconds inside the functions that it wraps; of one inside another only the outer counts. Other work on
    the machine moves them less than seconds on the wall."""

    def __init__(self) -> None:
        self.inside = 0
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def wrap(self, title: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            self.inside += 1
            started = time.process_time()
            try:
                return function(*arguments, **named)
            finally:
                self.inside -= 1
                if not self.inside:
                    self.seconds[title] += time.process_time() - started
                    self.calls[title] += 1

        return timed

    def told(self) -> list[tuple[str, float]]:
        """Seconds by title, less what reading the clock takes, which many of these calls hardly outlast."""
        nothing = self.wrap("nothing", lambda: None)
        for _ in range(100_000):
            nothing()
        reading = self.seconds.pop("nothing") / 100_000
        return [(title, seconds - reading * self.calls[title]) for title, seconds in self.seconds.most_common()]


def share(folder: Path) -> None:
    """Where the line spends its time: what is wrapped here, and the whole."""
    clock = Clock()
    for module in (rows, item, dataset_store, mix, split):
        for function in ("canonical_json", "row_name", "merkle_root", "ledger_digest", "draw", "sha256_bytes"):
            title = _WRITING if function == "canonical_json" else "names and digests"
            if hasattr(module, function):
                setattr(module, function, clock.wrap(title, getattr(module, function)))
    LinesDigest.add = clock.wrap("names and digests", LinesDigest.add)
    dataset_store._add = clock.wrap("names and digests", dataset_store._add)
    for where, title, methods in (
        (ParquetDatasetStore, "check of what is read", ("content", "names")),
        (SqliteKeyring, "subjects' keys", ("keys", "known", "erased")),
        (SqlLedger, "ledger", ("record", "entries", "record_set")),
    ):
        for method in methods:
            setattr(where, method, clock.wrap(title, getattr(where, method)))
    os.environ["ASSAY_DATA"] = str(folder.resolve())
    product = load_product(str(PRODUCT))
    product = product.model_copy(update={"sources": product.sources[:1]})
    with tempfile.TemporaryDirectory() as home:
        line = Line(Settings(home=Path(home)))
        line.pii.find(["warm up"])
        gc.freeze()  # else walking over the loaded models falls on whatever function is at work then
        started = time.process_time()
        manifest, _ = steps.raw(line, product)
        for step in ("contracted", "ledgered", "scrubbed", "deduplicated", "decontaminated", "mixture", "splits"):
            begun, before = time.process_time(), clock.seconds.total()
            manifest, _ = getattr(steps, step)(line, product, manifest)
            spent, cost = time.process_time() - begun, clock.seconds.total() - before
            print(f"  {step:<16}{spent:7.1f} s, of which {cost:5.1f} s", flush=True)
        whole = time.process_time() - started
    told = clock.told()
    apart = sum(seconds for title, seconds in told if title != _WRITING)
    sums = [("without that writing", apart), ("together", sum(seconds for _, seconds in told))]
    for title, seconds in [*told, *sums]:
        print(f"  {title:<28}{seconds:6.2f} s  {seconds / whole:5.1%}")
    print(f"  the whole line              {whole:6.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--data", type=Path)
    chosen = parser.parse_args()
    if chosen.data:
        share(chosen.data)
    else:
        answers(chosen.rows, chosen.postgres)


if __name__ == "__main__":
    main()
