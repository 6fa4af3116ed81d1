"""``assay costs``: what each tenant used, and what that comes to."""

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from data_contracts.errors import BadInput
from pipelines.stages.release.files import write_files
from pipelines.stages.signals.costs import Cost, costs, prices_file, read_prices, sums
from pipelines.terminal import JsonFlag, console, show
from pipelines.wiring import Line

app = typer.Typer()

_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M"]


@app.command("costs")
def show_costs(
    since: Annotated[datetime | None, typer.Option(formats=_FORMATS, help="From this time (UTC) on.")] = None,
    until: Annotated[datetime | None, typer.Option(formats=_FORMATS, help="Before this time (UTC).")] = None,
    tenant: Annotated[str, typer.Option(help="Only this tenant's.")] = "",
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="CSV file to write: a row for a product of a tenant.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """What each tenant used: device minutes of training, requests and tokens of the gateway, memory of loaded
    adapters, by product; priced where there is a HOME/prices.yaml.

    Example: assay costs --since 2026-01-01 --until 2026-02-01 --csv january.csv
    """
    from pipelines.stages.train.run_record import settle

    start, end = (each and each.replace(tzinfo=UTC) for each in (since, until))
    if start and end and start >= end:
        raise BadInput(
            f"--since {start:%Y-%m-%dT%H:%M} is not before --until {end:%Y-%m-%dT%H:%M}: name an earlier time"
        )
    line = Line()
    prices = read_prices(prices_file(line.home))
    settle(line)
    found = [each for each in costs(line, line.products(), start, end, prices) if tenant in ("", each.tenant)]
    currency = None if prices is None else prices.currency
    if csv_file is not None:
        write_files(csv_file.parent, {csv_file.name: _csv(found, currency).encode()})
    if as_json:
        times = {"since": start and start.isoformat(), "until": end and end.isoformat()}
        show(times | {"currency": currency, "products": _rows(found), "tenants": _rows(sums(found))})
        return
    for whole in sums(found):
        of_tenant = [each for each in found if each.tenant == whole.tenant]
        for each in (*of_tenant, whole) if len(of_tenant) > 1 else of_tenant:
            console.print(_line(each, currency))
    if not found:
        console.print("no use in this time")
    elif currency is None:
        console.print(f"no amounts of money: {prices_file(line.home)} does not exist")


def _rows(found: Sequence[Cost]) -> list[dict[str, object]]:
    return [each.payload() | {"total": each.total} for each in found]


def _csv(found: Sequence[Cost], currency: str | None) -> str:
    """Without sums, which a spreadsheet would count twice."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*Cost.model_fields, "total", "currency"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(row | {"currency": currency} for row in _rows(found))
    return text.getvalue()


def _line(each: Cost, currency: str | None) -> str:
    used = f"{each.runs} runs, {each.gpu_minutes:.1f} GPU min, {each.cpu_minutes:.1f} CPU min"
    asked = f"{each.requests:,} requests, {each.prompt_tokens:,} tokens in, {each.completion_tokens:,} out"
    sums = f"{each.training:.2f} + {each.serving:.2f} + {each.memory:.2f}" if currency is not None else ""
    amount = f"; {sums} = {each.total:.2f} {currency}" if sums else ""
    return f"{each.tenant}, {each.product or 'in all'}: {used}; {asked}; {each.gib_hours:.2f} GiB h{amount}"
