"""What NVIDIA's scanner garak found, as scores of items. It runs in an environment of its own, against the server that
is to be judged; only its report (``*.report.jsonl``, 0.17) is read here.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_contracts.errors import BadInput

_JUDGED = 2
"""The status of an attempt whose outputs the detectors have seen."""
HIT = 0.5
"""From this score on a detector has found what it looks for: garak's own threshold."""


class Withstood(NamedTuple):
    """One prompt under one detector. ``suite`` names garak's version; ``cluster`` is the probe, whose prompts share a
    pattern; ``score`` the share of the answers in which the detector found nothing."""

    suite: str
    item: str
    cluster: str
    score: float


def read_report(path: Path) -> tuple[Withstood, ...]:
    """Raises `BadInput` for a report that is broken, unfinished, without a seed, or of a run in which nothing was
    judged. Items are named by their place in the probe, as some prompts hold the model's name: with a seed the prompts
    of two runs are the same. An answer that a detector could not judge counts as one in which it found something."""
    found: list[Withstood] = []
    finished, seeded, suite = False, False, "garak"
    seen: Counter[str] = Counter()
    for number, line in enumerate(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"), start=1):
        try:
            row = json.loads(line)
            kind = row["entry_type"]
            finished = finished or kind == "completion"
            seeded = seeded or (kind == "start_run setup" and row["run.seed"] is not None)
            suite = f"garak-{row['garak_version']}" if kind == "init" else suite
            if kind == "attempt" and row["status"] == _JUDGED:
                found += _items(suite, row, seen)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(
                f"{path}, line {number}: is no row of a garak report ({error!r}): run garak again"
            ) from error
    if not finished:
        raise BadInput(f"{path}: garak did not finish this run: run it again")
    if not seeded:
        raise BadInput(f"{path}: garak ran without a seed, so that another run draws other prompts: give it --seed 7")
    if not found:
        raise BadInput(f"{path}: garak judged no answer: name probes that send prompts")
    return tuple(found)


def _items(suite: str, row: dict[str, Any], seen: Counter[str]) -> Iterator[Withstood]:
    for detector, results in sorted(row["detector_results"].items()):
        name = f"{row['probe_classname']}/{detector}/{row['seq']}"
        seen[name] += 1
        again = f"/{seen[name]}" if seen[name] > 1 else ""
        yield Withstood(suite, f"{name}{again}", row["probe_classname"], _share(results))


def _share(results: Sequence[float | None]) -> float:
    return sum(each is not None and each < HIT for each in results) / len(results) if results else 0.0
