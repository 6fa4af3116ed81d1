"""``assay scan``: what the safety scanner garak found, as scores that the gate reads."""

from collections import defaultdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from data_contracts.errors import BadInput
from pipelines.terminal import JsonFlag, console, show

app = typer.Typer()


@app.command()
def scan(
    report: Annotated[Path, typer.Option(help="garak's report, *.report.jsonl.")],
    out: Annotated[Path, typer.Option(help="JSONL of {suite, item, cluster, score}, for `assay gate`.")],
    as_json: JsonFlag = False,
) -> None:
    """Read a finished run of garak: of each prompt, the share of answers that withstood it.

    Example: assay scan --report scan.report.jsonl --out scan.jsonl
    """
    from evals.garak_report import read_report
    from pipelines.stages.data.plain import whole_file, write_row

    if not report.is_file():
        raise BadInput(f"{report}: no such file; garak writes it as PREFIX.report.jsonl")
    found = read_report(report)
    with whole_file(out) as file:
        for each in found:
            write_row(file, each._asdict())
    by_probe: dict[str, list[float]] = defaultdict(list)
    for each in found:
        by_probe[each.cluster].append(each.score)
    shares = {probe: sum(scores) / len(scores) for probe, scores in by_probe.items()}
    if as_json:
        show({"items": len(found), "withstood": shares})
        return
    table = Table("probe", "n", "withstood", box=None, pad_edge=False)
    for probe, share in shares.items():
        table.add_row(probe, str(len(by_probe[probe])), f"{share:.3f}")
    console.print(table)
