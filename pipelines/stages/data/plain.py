"""Plain files of rows for the ``assay data`` commands: read row by row, written whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from data_contracts.errors import BadInput
from pipelines.stages.data.item import Row
from pipelines.stages.data.sources import FORMATS, read


@dataclass
class Report:
    """What became of the rows of a file. ``row`` of a drop is its zero-based line."""

    rows_in: int = 0
    dropped: list[dict[str, Any]] = field(default_factory=list)

    def drop(self, row: int, reason: str, match: str = "", **facts: Any) -> None:
        self.dropped.append({"row": row, "reason": reason} | ({"match": match} if match else {}) | facts)

    def payload(self) -> dict[str, Any]:
        dropped = sorted(self.dropped, key=lambda drop: drop["row"])
        return {"in": self.rows_in, "out": self.rows_in - len(dropped), "dropped": dropped}


def rows(path: Path, bad: Report | None = None) -> Iterator[tuple[int, Row]]:
    """(zero-based line, row) of a JSONL, CSV or Parquet file; blank lines are no rows. A line that cannot be read is
    counted and dropped in ``bad``; without that the first one raises `BadInput` with file, line and remedy. So does a
    file without rows."""
    if path.suffix.lower() not in FORMATS:
        raise BadInput(f"{path} is not JSONL, CSV or Parquet by its name: give a {', '.join(FORMATS)} file")
    if not path.is_file():
        raise BadInput(f"{path} does not exist, or is no file: give a {', '.join(FORMATS)} file")
    empty = True
    for record in read(path, str(path)):
        if not record.fault:
            empty = False
            yield record.line - 1, record.values
        elif bad is None:
            raise BadInput(f"{path}, line {record.line} {record.fault}")
        else:
            bad.rows_in += 1
            bad.drop(record.line - 1, record.fault)
    if empty:
        kind = "has no line that can be read" if bad and bad.rows_in else "is empty"
        raise BadInput(f"{path} {kind}: it needs at least one row")


def text_of(path: Path, line: int, row: Row, name: str) -> str:
    """The text in a row's field. Raises `BadInput` when there is none."""
    value = row.get(name)
    if not isinstance(value, str):
        found = "is missing" if name not in row else f"is not a text ({type(value).__name__})"
        raise BadInput(
            f"{path}, line {line + 1}: the field {name!r} {found}; its fields are: {', '.join(row) or 'none'}"
        )
    return value


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A file that appears under ``path`` only when all of it was written."""
    if not path.parent.is_dir():
        raise BadInput(f"{path}: the folder {path.parent} does not exist; make it first")
    if path.is_dir():
        raise BadInput(f"{path} is a folder; name a file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("w", encoding="utf-8") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_row(target: TextIO, row: Row) -> None:
    target.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_report(path: Path | None, report: dict[str, Any]) -> None:
    if path is not None:
        with whole_file(path) as target:
            json.dump(report, target, indent=2, ensure_ascii=False)
            target.write("\n")
