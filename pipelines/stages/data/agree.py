"""How far the raters of a plain file agree: alpha, what each rater did, and the rows that they disagree on."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from data_contracts.errors import BadInput
from evals.agreement import Rated, agreement, majority, rater_reports, spread
from evals.stats import StatsError
from pipelines.stages.data.item import Row
from pipelines.stages.data.plain import Report, rows


def rate_file(
    path: Path,
    item_field: str,
    rater_columns: tuple[str, ...] = (),
    rater_field: str = "",
    label_field: str = "",
    tie: str | None = None,
    order: tuple[str, ...] = (),
) -> dict[str, Any]:
    """A report with counts, alpha with its interval, each rater, and ``disagreements``: the zero-based lines of items
    that are not rated alike. ``dropped`` are the lines of items without a majority, or tied. Either each of
    ``rater_columns`` holds a rater's label, or a row is one rating, by ``rater_field`` and ``label_field``. Raises
    `BadInput` naming line, field and remedy, and where the ratings give no alpha."""
    report = Report()
    ratings: list[Rated] = []
    lines: defaultdict[str, list[int]] = defaultdict(list)
    for line, row in rows(path):
        report.rows_in += 1
        item = _cell(path, line, row, item_field) if item_field else str(line)
        if not item or (rater_columns and item in lines):
            fault = f"has the item {item!r} of line {lines[item][0] + 1} again" if item else f"has no {item_field!r}"
            raise BadInput(f"{path}, line {line + 1} {fault}; give each item a value of its own")
        lines[item].append(line)
        for rater, column in [(each, each) for each in rater_columns] or [
            (_cell(path, line, row, rater_field), label_field)
        ]:
            if label := _cell(path, line, row, column):
                ratings.append(Rated(item, rater, label))
    try:
        found, raters = agreement(ratings, order), rater_reports(ratings, tie)
    except StatsError as error:
        raise BadInput(f"{path}: {error}") from error
    given: defaultdict[str, list[str]] = defaultdict(list)
    for each in ratings:
        given[each.item].append(each.label)
    for item, places in lines.items():
        if majority(given[item]) in (None, tie):
            for line in places:
                report.drop(line, "raters-disagree")
    report.dropped.sort(key=lambda drop: drop["row"])
    return report.payload() | {
        "alpha": found._asdict(),
        "level": "ordinal" if order else "nominal",
        "raters": {rater: each._asdict() for rater, each in raters.items()},
        "spread": spread(raters),
        "disagreements": sorted(line for item, places in lines.items() if len(set(given[item])) > 1 for line in places),
    }


def _cell(path: Path, line: int, row: Row, field: str) -> str:
    """What stands in a field, as text; nothing where it is empty."""
    if field not in row:
        raise BadInput(
            f"{path}, line {line + 1}: there is no field {field!r}; its fields are: {', '.join(row) or 'none'}"
        )
    value = row[field]
    if isinstance(value, dict | list):
        raise BadInput(f"{path}, line {line + 1}: the field {field!r} is a {type(value).__name__}; it needs one value")
    return "" if value is None else str(value)
