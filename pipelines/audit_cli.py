"""``assay audit``: what people and sensors did, from the audit log."""

from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Annotated

import typer
from pydantic import JsonValue

from data_contracts.chain import ALL, AuditRecord
from data_contracts.errors import BadInput
from pipelines.terminal import JsonFlag, console, show
from pipelines.wiring import Line

app = typer.Typer()

_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M"]
_WIDTH = 60


@app.command()
def audit(
    since: Annotated[datetime | None, typer.Option(formats=_FORMATS, help="From this time (UTC) on.")] = None,
    until: Annotated[datetime | None, typer.Option(formats=_FORMATS, help="Before this time (UTC).")] = None,
    product: Annotated[str, typer.Option(help="Only this product's, and what concerns all of them.")] = "",
    actor: Annotated[str, typer.Option(help="Only this one's; * stands for anything, as in cli:*.")] = "*",
    event: Annotated[str, typer.Option(help="Only events of this name; * stands for anything, as in release.*.")] = "*",
    as_json: JsonFlag = False,
) -> None:
    """Who did what, when: the records of the audit log, oldest first, after the whole chain was checked.

    Example: assay audit --since 2026-01-01 --product billing-assistant --actor 'cli:*'
    """
    if since and until and since >= until:
        raise BadInput(f"--since {since:%Y-%m-%dT%H:%M} is not before --until {until:%Y-%m-%dT%H:%M}")
    start, end = (each and each.replace(tzinfo=UTC) for each in (since, until))
    found = [
        record
        for record in Line().log.records()
        if (start is None or record.time >= start)
        and (end is None or record.time < end)
        and (not product or record.product in (product, ALL))
        and fnmatchcase(record.actor, actor)
        and fnmatchcase(record.event, event)
    ]
    if as_json:
        show([record.payload() | {"digest": record.digest} for record in found])
        return
    for record in found:
        console.print(_line(record))
    if not found:
        console.print("no such record")


def _line(record: AuditRecord) -> str:
    facts = "  ".join(f"{name}={_short(value)}" for name, value in record.body.items() if value not in (None, "", []))
    when = f"{record.time:%Y-%m-%dT%H:%M:%SZ}"
    return f"{record.sequence:>5}  {when}  {record.actor}  {record.event}  {record.product}  {facts}"


def _short(value: JsonValue) -> str:
    text = str(value)
    if text.startswith("sha256:") and len(text) == len("sha256:") + 64:
        return text[: len("sha256:") + 12]
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
