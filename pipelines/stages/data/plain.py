"""Plain JSONL files for the ``assay data`` commands: read row by row, written whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from data_contracts.errors import BadInput
from pipelines.stages.data.sources import read
from pipelines.stages.protocols import Row


@dataclass
class Report:
    """What became of the rows of a file. ``row`` of a drop is its zero-based line."""

    rows_in: int = 0
    dropped: list[dict[str, Any]] = field(default_factory=list)

    def drop(self, row: int, reason: str, match: str = "") -> None:
        self.dropped.append({"row": row, "reason": reason} | ({"match": match} if match else {}))

    def payload(self) -> dict[str, Any]:
        return {"in": self.rows_in, "out": self.rows_in - len(self.dropped), "dropped": self.dropped}


def rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(zero-based line, row) of a JSONL file; blank lines are no rows. Raises `BadInput` that names file, line and
    remedy at the first line that is no JSON object, and for a file without rows."""
    if path.suffix not in (".jsonl", ".ndjson"):
        raise BadInput(f"{path} is not JSONL by its name: give a .jsonl file")
    if not path.is_file():
        raise BadInput(f"{path} does not exist, or is no file: give a .jsonl file")
    empty = True
    for record in read(path, str(path)):
        if record.fault:
            raise BadInput(f"{path}, line {record.line} {record.fault}")
        empty = False
        yield record.line - 1, record.values
    if empty:
        raise BadInput(f"{path} is empty: it needs at least one row")


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
