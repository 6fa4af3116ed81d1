"""``assay data ...``: the data plane's tools on plain files. Each report holds the counts and every dropped row."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from pipelines.terminal import console

app = typer.Typer(no_args_is_help=True, help="The data plane's tools on plain files.")

InFile = Annotated[Path, typer.Option("--in", help="JSONL file, one object a line.")]
OutFile = Annotated[Path, typer.Option("--out", help="JSONL file to write; it appears only when it is whole.")]
ReportFile = Annotated[Path | None, typer.Option("--report", help="JSON file: in, out, and each dropped row with why.")]
TextField = Annotated[str, typer.Option("--field", help="The field that holds the text.")]


@app.command()
def check(
    source: Annotated[Path, typer.Option("--in", help="JSONL, CSV or Parquet file.")],
    contract: Annotated[Path, typer.Option(help="Data contract (Open Data Contract Standard YAML).")],
    report: ReportFile = None,
) -> None:
    """Hold every row of a file to a data contract. Exit code 1 when a row breaks it.

    Example: assay data check --in rows.jsonl --contract data_contracts/contracts/billing-conversations.yaml
    """
    from pipelines.stages.data.check import check_file
    from pipelines.stages.data.plain import write_report

    found = check_file(source, contract)
    write_report(report, found.payload())
    _tell(found.rows_in, [drop["reason"] for drop in found.dropped])
    if found.dropped:
        raise typer.Exit(1)


def _tell(rows_in: int, reasons: list[str]) -> None:
    console.print(f"{rows_in} rows in, {rows_in - len(reasons)} out, {len(reasons)} dropped")
    for reason, count in Counter(reasons).most_common(20):
        console.print(f"  {count:>7}  {reason}")
