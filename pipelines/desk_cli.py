"""``assay desk``: prompt, worked examples, retrieval or fine-tuning, on the same goldens."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pipelines.terminal import JsonFlag, ProductName, console, show
from pipelines.wiring import Line

if TYPE_CHECKING:
    from evals.desk_sheet import DeskSheet

app = typer.Typer()
STOPPED = 130


@app.command()
def desk(
    product: ProductName,
    candidate: Annotated[str, typer.Option(help="The fine-tuned model, by digest; the live one, or the newest.")] = "",
    price: Annotated[
        float | None, typer.Option(min=0, help="Of an hour of the machine that serves; ASSAY_HOUR_COST without it.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=3, help="Only so many items of each suite, from its start.")] = None,
    timed: Annotated[int, typer.Option(min=3, help="Items of each suite that are asked against the clock.")] = 24,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once, of those.")] = 4,
    out: Annotated[Path | None, typer.Option(help="Folder of the page; one in the home's reports without it.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask the base plainly, with worked examples, with passages from the product's documents, and the fine-tuned model;
    write a decision sheet. What was answered before is not asked again, but for what is timed.

    Example: assay desk billing-assistant --limit 12 --price 0.4
    """
    from evals.desk import Asking
    from pipelines.stages.release.files import report_folder, write_report
    from pipelines.stages.release.techniques import decision_sheet, model_for

    line = Line()
    named = line.product(product)
    cost = line.hour_cost if price is None else price
    try:
        model = model_for(line, named, candidate)
        sheet, report = decision_sheet(line, named, model, cost, Asking(limit, timed, concurrency), _say)
    except KeyboardInterrupt:
        print("assay: stopped; what was answered is kept, the same command goes on", file=sys.stderr)
        raise typer.Exit(STOPPED) from None
    written = write_report(out or report_folder(line.home, sheet.digest), report)
    if as_json:
        show(sheet.payload() | {"digest": sheet.digest, "page": str(written)})
    else:
        _tell(sheet)
        console.print(f"page   {written}\nsheet  {sheet.digest}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _tell(sheet: "DeskSheet") -> None:
    from evals.desk_pages import headline, interval, sentence, told

    for part in sheet.suites:
        console.print(f"{part.suite}, {part.metric} of {part.items} items in {part.clusters} clusters")
        table = Table("technique", "standing", box=None, pad_edge=False)
        for head in ("quality", "p50, s", "p95, s", "tokens in", "out", "server s / 1,000", "cost / 1,000"):
            table.add_column(head, justify="right")
        for row in part.rows:
            speed = row.speed
            table.add_row(
                row.technique,
                part.choice.standings[row.technique],
                interval(row.quality),
                told(speed.p50_s, ".2f"),
                told(speed.p95_s, ".2f"),
                told(speed.prompt_tokens, ".0f"),
                told(speed.completion_tokens, ".0f"),
                told(speed.server_s, ",.0f"),
                told(speed.cost, ".4g") if sheet.price is not None else "no price",
            )
        console.print(table)
        for reason in (*part.choice.reasons, f"payback of the training: {part.payback.reason}"):
            console.print(f"  {sentence(reason)}", markup=False)
        console.print(f"{headline(part.choice)}\n")
    console.print(f"{headline(sheet.choice)}: {sentence(sheet.choice.reasons[-1])}", markup=False)
