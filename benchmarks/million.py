"""A million answers of one product, of which a share is kept in words: how long the hourly look at it takes, and its
overview page.

    python -m benchmarks.million [--traces 1000000] [--share 0.02]

The answers are those of a month of `tests.support.month` (the demo's generated questions, ratings, corrections and
labels), spread over as many hours as give one window each. Then a process of its own each time does what a user or the
schedule does: seconds, and the peak of its memory.
"""

import argparse
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipelines.settings import Settings
from pipelines.stages.signals.policy import load_policy
from pipelines.wiring import Line
from tests.support.month import PRODUCT, Demo, Month, World

POLICY = load_policy()
HOUR = timedelta(hours=1)
AT_ONCE = 250
"""Windows that wait in the spools at most."""


class Hours(Month):
    """A window each hour, of which a ``share`` of the answers is kept in words."""

    share = 0.0

    def fill(self, first: int, windows: int) -> None:
        for number in range(first, first + windows):
            self.write(number)
            if number % AT_ONCE == AT_ONCE - 1:
                self.flush()
        self.flush()

    def write(self, number: int) -> None:
        begins = self.demo.began + number * HOUR
        world = World()
        for index in range(POLICY.window):
            time, name = begins + index / POLICY.window * HOUR, f"m{number:05}-{index:03}"
            asked = self.dice.choice(self.demo.known)
            self.parts.traces.add(self._trace(name, time, asked))
            if self.dice.random() < self.share:
                self.parts.feedback.add_exchange(self._exchange(name, time, asked))
            for said in self._said(name, time, asked, world, index % 40 == 0):
                self.parts.feedback.add(said)

    def flush(self) -> None:
        if not (self.parts.traces.flush(900) and self.parts.feedback.flush(900)):
            raise RuntimeError("the stores do not take what is written")


def nothing(line: Line) -> str:
    return "-"


def look(line: Line) -> str:
    """The assets of the signals, as the schedule materializes them."""
    import dagster as dg

    from assets import signals
    from resources.dagster import ManifestIOManager, Manifests

    manifests = Manifests(line.home / "manifests", line.store)
    resources: dict[str, Any] = {"line": line, "manifests": manifests, "io_manager": ManifestIOManager(manifests)}
    assets = [signals.traces, signals.exchanges, signals.judged, signals.drift, signals.retrain_decision]
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize(assets, instance=instance, resources=resources, partition_key=PRODUCT)
        decision = done.asset_materializations_for_node("signals__retrain_decision")[0].metadata["decision"].value
        reasons = done.asset_materializations_for_node("signals__retrain_decision")[0].metadata["reasons"].value
        windows = done.asset_materializations_for_node("signals__traces")[0].metadata["windows"].value
    return f"{windows} windows compared; {decision}: {reasons}"


def catch_up(line: Line) -> str:
    """A look reads so many windows of words at most, and the next one goes on: until none is left."""
    from pipelines.stages.signals.exchanges import exchanges

    looks, last = 0, None
    while (found := exchanges(line, line.product(PRODUCT), POLICY).current[-1:]) != last:
        looks, last = looks + 1, found
    return f"{looks} looks, to window {last[0].number if last else 0}"


def page(line: Line) -> str:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from pipelines.overview_cli import overview_of
    from pipelines.stages.signals.overview_page import add_overviews

    app = FastAPI()
    add_overviews(app, lambda product: overview_of(line, product))
    answer = TestClient(app).get(f"/product/{PRODUCT}")
    return f"status {answer.status_code}, {len(answer.content)} bytes"


def peak_mib() -> float:
    """Of this program: what `getrusage` tells begins with the memory of the one that started it."""
    line = next(each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def done_in(settings: dict[str, Any], act: Callable[[Line], str], answer: Connection) -> None:
    line = Line(Settings(**settings))
    started = time.perf_counter()
    said = act(line)
    answer.send((time.perf_counter() - started, peak_mib(), said))


def show(what: str, month: Hours, act: Callable[[Line], str]) -> None:
    ours, theirs = multiprocessing.Pipe()
    chosen = month.parts.settings
    settings = {"home": chosen.home, "trust_root": chosen.trust_root, "products": chosen.products}
    process = multiprocessing.get_context("spawn").Process(target=done_in, args=(settings, act, theirs))
    process.start()
    theirs.close()
    seconds, peak, said = ours.recv()
    process.join()
    print(f"| {what} | {seconds:.1f} | {peak:.0f} | {said} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=int, default=1_000_000)
    parser.add_argument("--share", type=float, default=0.02, help="of the answers, kept in words")
    chosen = parser.parse_args()
    windows = chosen.traces // POLICY.window
    with tempfile.TemporaryDirectory() as folder:
        began = datetime.now(UTC) - (windows + 24) * HOUR
        demo = Demo(Path(folder) / "demo", began=began)
        month = Hours(demo, demo.line.copied(Path(folder) / "month"), 1, "")
        month.dice, month.share = random.Random(1), chosen.share
        started = time.perf_counter()
        month.fill(0, windows)
        print(f"{windows * POLICY.window} traces in {time.perf_counter() - started:.0f} s", flush=True)
        print("| what | seconds | peak MiB | |\n|-|-|-|-|")
        show("a process that does nothing", month, nothing)
        show("the first look: every window is cut", month, look)
        show("words that are left are cut, some windows a look", month, catch_up)
        month.fill(windows, 1)
        show("the next look, an hour later", month, look)
        show("the overview page", month, page)
        show("the overview page, again", month, page)


if __name__ == "__main__":
    main()
