"""``assay data who | expiring | card``: what the ledger and the manifests tell of rows and data sets."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from pipelines.terminal import JsonFlag, console, show
from pipelines.wiring import Line

app = typer.Typer()


@app.command()
def who(
    subject: Annotated[str, typer.Option(help="A person, as the column of the contract's subject key names them.")],
    as_json: JsonFlag = False,
) -> None:
    """Which rows are about a person, and the data sets, checkpoints, releases and routes that they went into.

    Example: assay data who --subject "Maria Keller"
    """
    from pipelines.stages.release.trace import trace_subject

    found = trace_subject(Line(), subject)
    if as_json:
        show(found.payload())
        return
    state = ", erased" if found.erased else ""
    made = len(found.rows) - found.records
    console.print(f"subject {found.subject}{state}: {found.records} records, {made} rows made from them")
    for source in found.sources:
        console.print(f"  source      {source}")
    for stage in found.data:
        console.print(f"  data set    {stage.data_set}  {stage.product} {stage.stage}")
    for checkpoint in found.checkpoints:
        console.print(f"  checkpoint  {checkpoint}")
    for use in found.releases:
        console.print(f"  release     {use.release}  {', '.join(use.routes) or 'not live'}")


@app.command()
def expiring(
    before: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], help="A day: what may no longer be learned from on it.")
    ],
    as_json: JsonFlag = False,
) -> None:
    """Rows whose retention has passed or passes before a day, by source and contract, soonest first.

    Example: assay data expiring --before 2031-01-01
    """
    found = Line().ledger.expiring(before.date())
    if as_json:
        show([each.payload() for each in found])
        return
    for each in found:
        console.print(f"{each.retain_until}  {each.records:>9} records, {each.derived} made from them  {each.source}")
    if not found:
        console.print(f"nothing expires before {before.date()}")


@app.command()
def card(
    data_set: Annotated[str, typer.Argument(help="sha256:... of a data set, or a product: what it last trained on.")],
    out: Annotated[Path, typer.Option(help="Folder to write the card to.")] = Path("data-card"),
) -> None:
    """Write a data set's card: card.md with plots, and Croissant metadata. Counts, terms and decisions, no row text.

    Example: assay data card billing-assistant --out data-card
    """
    from pipelines.stages.release.data_card import find_set, write_data_card

    line = Line()
    console.print(f"written: {write_data_card(line, find_set(line, data_set), out)}")
