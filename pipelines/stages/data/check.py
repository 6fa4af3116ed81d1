"""A file of rows against a data contract, apart from any product."""

from pathlib import Path

from data_contracts.contract import load_table
from data_contracts.errors import BadInput
from data_contracts.rowcheck import Repeats, check_row
from pipelines.stages.data.plain import Report
from pipelines.stages.data.sources import FORMATS, read


def check_file(path: Path, contract: Path) -> Report:
    """Which rows break the contract or cannot be read, each with its reasons. Raises `BadInput` for a file or a
    contract of no use."""
    promise = load_table(contract)
    if not path.is_file() or path.suffix.lower() not in FORMATS:
        raise BadInput(f"{path} is no {', '.join(FORMATS)} file: give one that exists")
    repeats, report = Repeats(promise), Report()
    for record in read(path, str(path)):
        report.rows_in += 1
        reasons = [record.fault] if record.fault else check_row(promise, record.values)
        if reasons := reasons or repeats.check(record.values):
            report.drop(record.line - 1, "; ".join(reasons))
    if not report.rows_in:
        raise BadInput(f"{path} is empty: it needs at least one row")
    return report
