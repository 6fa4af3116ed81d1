"""``assay overview``: one product at a glance, as its page shows it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from pipelines.terminal import JsonFlag, ProductName, console, show
from pipelines.wiring import Line, overview_of

if TYPE_CHECKING:
    from pipelines.stages.signals.overview import Overview

app = typer.Typer()


@app.command()
def overview(product: ProductName, as_json: JsonFlag = False) -> None:
    """What is live and since when, alerts, health, drift, decisions, what waits for approval, what holds, and cost.

    Example: assay overview billing-assistant
    """
    line = Line()
    found = overview_of(line, line.product(product).name)
    if as_json:
        show(found.payload())
        return
    for what, text in _lines(found):
        console.print(f"{what:<10}  {text}", markup=False)
    console.print(f"page        {line.review_url}/product/{found.product} (assay up)", markup=False)


def _lines(it: "Overview") -> Iterator[tuple[str, str]]:
    since = f" since {it.since:%Y-%m-%d %H:%M} UTC" if it.since else ""
    state = f", {it.state}" if it.state else ""
    sunset = f", until {it.sunset:%Y-%m-%d %H:%M} UTC" if it.sunset else ""
    yield it.product, f"{it.environment}, tenant {it.tenant}"
    yield "live", f"{it.live or 'the base model'}{since}{state}{sunset}"
    if it.live:
        yield "previous", it.previous or "the base model"
    if it.challenger:
        yield "challenger", it.challenger
    for alert in it.alerts:
        yield "alert", f"{alert.happened} To do: {alert.todo} ({alert.runbook})"
    yield "health", f"not healthy: {', '.join(it.unwell)}" if it.unwell else "every program is healthy"
    if it.answered:
        yield "last hour", f"{it.answered.answers} answers of the live release, {it.answered.failed} failed"
    if it.drift:
        old = "" if it.drift.of_live else " (of a release that is not live now)"
        yield "drift", f"{'drifted' if it.drift.report.drifted else 'no drift'}{old}: {it.drift.report.reason}"
    if it.decided:
        yield "decision", f"{it.decided.decision.decision}: {'; '.join(it.decided.decision.reasons)}"
        for said in it.decided.decision.outlook.words if it.decided.decision.outlook else ():
            yield "", said
        for dispute in it.decided.disputes:
            yield "disputed", f"by {dispute.by}: {dispute.reason}"
    yield "next", it.next_decision
    for why in it.held:
        yield "held", why
    if it.locked:
        yield "approvals", f"none now: {it.locked}"
    for one in it.pending:
        yield "pending", f"{one.release} {one.state}: {one.commands[0][1]}"
    if it.cost:
        amount = "" if it.cost.total is None else f"; {it.cost.total:.2f} {it.currency}"
        minutes = f"{it.cost.gpu_minutes:.1f} GPU min, {it.cost.cpu_minutes:.1f} CPU min"
        served = f"{it.cost.requests:,} requests; {it.cost.gib_hours:.2f} GiB h"
        yield "this month", f"{it.cost.runs} runs, {minutes}; {served}{amount}"
    else:
        yield "this month", "no use"
    for name, address in it.links.items():
        if address.startswith("http"):
            yield name, address
    for fault in it.faults:
        yield "unknown", fault
