"""The trace store with a million traces: what filling it takes, and the questions that are asked of it.

    python -m benchmarks.trace_store [--traces 1000000] [--postgres]

TRACES made-up answers of ten tenants and two releases of one product, one a second up to an hour ago, go through the
spool into a store of their own. Then a fresh process asks each question twice: seconds of the first and the second
time, and the peak of that process's memory (what it imports is in it: the first line shows how much).
``--postgres`` asks a PostgreSQL server of its own instead of SQLite.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path

from data_contracts.traces import Trace
from pipelines.recipes.product import Product, Source
from pipelines.settings import Settings
from pipelines.stages.signals.costs import costs
from pipelines.stages.signals.drift import measure
from pipelines.stages.signals.policy import load_policy
from pipelines.stages.signals.traces import late, traffic
from pipelines.wiring import Line
from tests.support.traces import PRODUCT, make_trace, release

AT_ONCE = 100_000
"""Traces that wait in the spool at most."""
LIVE = release("a")
POLICY = load_policy()
NOW = datetime.now(UTC)
NAMED = Product(
    name=PRODUCT,
    tenant="acme",
    description="",
    sources=(Source(url="generated://x", contract="c"),),
    data_policy="d",
    recipe="r",
    template="t",
    suites=("s",),
    gate_policy="g",
)

QUESTIONS: dict[str, Callable[[Line], object]] = {
    "nothing": lambda line: "-",
    "one trace by its id": lambda line: line.traces.get("chatcmpl-0000000000000000000000000777") is not None,
    "the newest 100": lambda line: len(line.traces.recent(PRODUCT, 100)),
    "windows and drift report": lambda line: measure(traffic(line, NAMED, POLICY), POLICY).reason,
    "late answers": lambda line: late(line, NAMED, LIVE, POLICY),
    "bill of all time": lambda line: sum(each.requests for each in costs(line, [NAMED], None, None, None)),
    "bill of a day": lambda line: sum(
        each.requests for each in costs(line, [NAMED], NOW - timedelta(days=2), NOW - timedelta(days=1), None)
    ),
    "answers of a release": lambda line: line.traces.answered(PRODUCT, LIVE),
    "who saw a release": lambda line: len(line.traces.saw(PRODUCT, LIVE, NOW - timedelta(days=999))),
    "tokens of the day and month": lambda line: len(line.traces._tokens(NOW.date())),
}


def made(index: int, count: int) -> Trace:
    return make_trace(
        f"chatcmpl-{index * 7919 % count:028d}",
        time=NOW - timedelta(hours=1, seconds=count - index),
        tenant=f"tenant-{index % 10}",
        release=LIVE if index % 4 else release("b"),
        adapter=release(f"adapter {index % 4}"),
        prompt_chars=100 + index % 400,
        tool=("get_invoice", "issue_refund", None)[index % 3],
        status=502 if index % 100 == 0 else 200,
        failed=(release("c"),) if index % 1000 == 0 else (),
    )


def filled(line: Line, count: int) -> tuple[float, float]:
    """Seconds that whoever adds is held up, and until all is stored."""
    adding, started = 0.0, time.perf_counter()
    for index in range(count):
        trace = made(index, count)
        began = time.perf_counter()
        line.traces.add(trace)
        adding += time.perf_counter() - began
        if index % AT_ONCE == 0 and not line.traces.flush(600):
            raise RuntimeError("the store does not take traces")
    line.traces.flush(600)
    return adding, time.perf_counter() - started


def asked(home: Path, url: str, question: str, answer: Connection) -> None:
    line = Line(Settings(home=home, traces=url))
    times = []
    for _ in range(2):
        started = time.perf_counter()
        found = QUESTIONS[question](line)
        times.append(time.perf_counter() - started)
    answer.send((*times, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=int, default=1_000_000)
    parser.add_argument("--postgres", action="store_true")
    chosen = parser.parse_args()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = ""
        if chosen.postgres:
            from tests.support.postgres import new_database, postgres

            url = new_database(stack.enter_context(postgres()))
        line = Line(Settings(home=home, traces=url))
        line.log.append("promotion.recorded", PRODUCT, {"environment": "production", "release": LIVE}, actor="test")
        adding, seconds = filled(line, chosen.traces)
        line.traces.close()
        size = sum(path.stat().st_size for path in home.glob("traces.sqlite*"))
        if url:
            with line.traces.database.session() as session:
                ((size,),) = session.query("select pg_database_size(current_database())")
        store = "PostgreSQL" if url else "SQLite"
        print(f"{store}: {chosen.traces} traces in {seconds:.1f} s, {size / 1e6:.0f} MB; ", end="")
        print(f"adding one takes {adding / chosen.traces * 1e6:.0f} us", flush=True)
        print("| question | first, s | again, s | peak MiB | answer |\n|---|---|---|---|---|")
        for question in QUESTIONS:
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.get_context("spawn").Process(target=asked, args=(home, url, question, theirs))
            process.start()
            first, again, peak, found = ours.recv()
            process.join()
            print(f"| {question} | {first:.2f} | {again:.2f} | {peak:.0f} | {found} |", flush=True)


if __name__ == "__main__":
    main()
