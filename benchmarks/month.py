"""Simulated months of the demo product, replayed into the real stores: does the line retrain when it should, and only
then?

    python -m benchmarks.month --seeds 20
    python -m benchmarks.month --seeds 5 --world "new label"
    python -m benchmarks.month --seeds 2 --postgres

A month is a reference and 60 windows of 12 hours; worlds that change do so after 24. Questions and answers are those of
the demo's generated rows, their meaning is read by the real embedder, and no model answers. Nothing is trained: the
release stays, so that what more of one change drifts later is decided on again.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from tests.support.month import Change, Demo, Look, World, replayed
from tests.support.postgres import new_database, postgres

WINDOWS, AFTER = 60, 24
FROZEN = (AFTER + 1, AFTER + 16)
"""Windows that the freeze covers, of the world that has one."""


def slow_decay(window: int) -> World:
    """Bad ratings and corrections triple over thirty windows."""
    share = min(1.0, window / 30)
    return World(bad=0.02 + 0.04 * share, corrected=0.01 + 0.02 * share)


WORLDS: dict[str, Change | None] = {
    "stable": None,
    "topic shift": lambda _: World(topic=0.3),
    "slow decay": slow_decay,
    "new label": lambda _: World(new_label=0.2),
    "topic shift, frozen": lambda _: World(topic=0.3),
}


class Found(NamedTuple):
    """``early``: retrainings before anything changed. ``due``: the window of the first decision after the change that
    was to retrain or to hold, counted from the change; ``decided``: that decision. ``trains``: the first one to
    retrain. ``again``: later ones, of what drifted beside it then."""

    early: int
    due: int | None
    decided: str
    trains: int | None
    again: int
    records: int


def found(looks: list[Look], changes: bool, records: int) -> Found:
    after = AFTER if changes else WINDOWS
    early = sum(each.decision.decision == "retrain" for each in looks if each.window <= after)
    late = [each for each in looks if each.window > after and each.decision.decision in ("retrain", "hold")]
    trains = [each for each in late if each.decision.decision == "retrain"]
    first = late[0] if late else None
    return Found(
        early=early,
        due=first.window - after if first else None,
        decided=f"{first.decision.decision} {first.decision.held_by or ''}".strip() if first else "none",
        trains=trains[0].window - after if trains else None,
        again=len(trains[1:]),
        records=records,
    )


def row(world: str, months: list[Found]) -> str:
    delays = [each.due for each in months if each.due is not None]
    waits = [each.trains for each in months if each.trains is not None]
    decided = sorted({each.decided for each in months})
    cells = [
        world,
        len(months),
        sum(each.early > 0 for each in months),
        len(delays) if WORLDS[world] else "",
        f"{mean(delays):.1f} ({max(delays)})" if delays else "",
        ", ".join(f"{one}: {sum(each.decided == one for each in months)}" for one in decided) if WORLDS[world] else "",
        f"{mean(waits):.1f} ({max(waits)})" if waits else "",
        sum(each.again for each in months),
        sum(each.records for each in months),
    ]
    return f"| {' | '.join(map(str, cells))} |"


def table(
    demo: Demo, folder: Path, seeds: range, worlds: list[str], stack: ExitStack, on_postgres: bool
) -> Iterator[str]:
    server = stack.enter_context(postgres()) if on_postgres else None
    yield (
        "| world | months | with a false retraining | found | delay, windows: mean (most) | decided first | "
        "retrained after, windows: mean (most) | retrainings after that | decisions, all justified by the log |"
    )
    yield "|-|-|-|-|-|-|-|-|-|"
    for world in worlds:
        months = []
        for seed in seeds:
            url = new_database(server) if server else ""
            with tempfile.TemporaryDirectory(dir=folder) as home:
                month = demo.month(Path(home) / "month", seed, url)
                if "frozen" in world:
                    month.freeze(*FROZEN)
                looks = list(month.play(WORLDS[world], WINDOWS, AFTER))
                months.append(found(looks, WORLDS[world] is not None, replayed(month)))
                print(f"{world}, seed {seed}: {months[-1]}", flush=True)
        yield row(world, months)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--world", choices=list(WORLDS), action="append", help="only this one; may be said again")
    parser.add_argument("--postgres", action="store_true", help="a database of PostgreSQL for each month, not SQLite")
    chosen = parser.parse_args()
    began = time.monotonic()
    seeds = range(chosen.first, chosen.first + chosen.seeds)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        demo = Demo(Path(folder) / "demo")
        lines = table(demo, Path(folder), seeds, chosen.world or list(WORLDS), stack, chosen.postgres)
        print("\n".join(list(lines)))
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
