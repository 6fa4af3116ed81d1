"""A file without its copies, apart from any product."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from data_contracts.errors import BadInput
from pipelines.stages.data.deduplicate import THRESHOLD, TIERS
from pipelines.stages.data.item import Row
from pipelines.stages.data.meaning import Meaning
from pipelines.stages.data.near import copies
from pipelines.stages.data.plain import Report, rows, text_of, whole_file, write_report, write_row


class Rank(NamedTuple):
    """The fields by which the row of a cluster that stays is chosen: its tier, then its date; without, its place."""

    tier: str | None = None
    date: str | None = None


def deduplicate_file(
    source: Path,
    field: str,
    target: Path,
    report: Path | None,
    threshold: float = THRESHOLD,
    rank: Rank | None = None,
    skip_bad: bool = False,
    meaning: Meaning | None = None,
    tell: Callable[[int], None] = lambda rows: None,
) -> dict[str, Any]:
    """Write the rows of ``source`` whose text copies no better one to ``target``, in their order. Returns the report.
    With a rank or ``meaning`` the texts are held in memory, without only what stands for them."""
    if not 0.5 <= threshold <= 1:
        raise BadInput(f"the threshold {threshold} is not between 0.5 and 1 (1: exact copies only)")
    told = Report()
    numbered = _texts(source, field, rank or Rank(), told if skip_bad else None)
    lines: list[int] = []
    sizes: Counter[int] = Counter()
    for number, copy in enumerate(copies(_noted(numbered, lines), threshold, meaning)):
        if copy is not None:
            survivor = lines[copy.survivor]
            sizes[survivor] += 1
            told.drop(lines[number], f"{copy.how}-duplicate", str(survivor), similarity=round(copy.similarity, 4))
        tell(number + 1)
    told.rows_in += len(lines)
    clusters = Counter(size + 1 for size in sizes.values())
    found = told.payload() | {
        "threshold": threshold,
        "clusters": {"count": len(sizes), "sizes": {str(size): clusters[size] for size in sorted(clusters)}},
    }
    gone = {drop["row"] for drop in told.dropped}
    with whole_file(target) as handle:
        for line, row in rows(source, Report() if skip_bad else None):
            if line not in gone:
                write_row(handle, row)
        write_report(report, found)
    return found


def _texts(source: Path, field: str, rank: Rank, bad: Report | None) -> Iterable[tuple[int, str]]:
    """(line, text), the best rows first."""
    if rank == Rank():
        return ((line, text_of(source, line, row, field)) for line, row in rows(source, bad))
    ranked = [(_place(source, line, row, rank), text_of(source, line, row, field)) for line, row in rows(source, bad)]
    ranked.sort(key=lambda each: each[0])
    return ((line, text) for (_, _, line), text in ranked)


def _place(source: Path, line: int, row: Row, rank: Rank) -> tuple[int, datetime, int]:
    """Sorts the best tier first, in it the oldest date, and of one date the first line."""
    tier, date = 0, datetime.min.replace(tzinfo=UTC)
    if rank.tier is not None:
        name = text_of(source, line, row, rank.tier)
        if name not in TIERS:
            raise BadInput(f"{source}, line {line + 1}: the field {rank.tier!r} is not one of {', '.join(TIERS)}")
        tier = TIERS.index(name)
    if rank.date is not None:
        try:
            date = datetime.fromisoformat(text_of(source, line, row, rank.date))
        except ValueError as error:
            raise BadInput(
                f"{source}, line {line + 1}: the field {rank.date!r} is no ISO 8601 date such as 2026-03-31"
            ) from error
    return tier, date if date.tzinfo else date.replace(tzinfo=UTC), line


def _noted(numbered: Iterable[tuple[int, str]], lines: list[int]) -> Iterator[tuple[str, str]]:
    """The texts in the form that `copies` takes; the line of each goes into ``lines`` as it is read."""
    for line, text in numbered:
        lines.append(line)
        yield text, text
