"""``assay decision | dispute | freeze | incident``: when the line trains by itself, and what holds it."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from data_contracts.chain import ALL
from pipelines.stages.signals.freeze import freeze_file, frozen, read_calendar
from pipelines.stages.signals.incident import close_incident, open_incident, open_incidents, told
from pipelines.terminal import JsonFlag, ProductName, console, person, show
from pipelines.wiring import Line

app = typer.Typer()
incident_app = typer.Typer(no_args_is_help=True, help="The switch for incidents: while one is open, nothing retrains.")
app.add_typer(incident_app, name="incident")

OneProduct = Annotated[str, typer.Option("--product", help="Only this product; all of them without it.")]
Why = Annotated[str, typer.Option("--reason", help="For whoever reads the log.")]


@app.command()
def decision(product: ProductName, as_json: JsonFlag = False) -> None:
    """The newest decision about retraining a product: what, why, what it would take and gain, and who disputed it.

    Example: assay decision billing-assistant
    """
    from pipelines.stages.signals.retrain_decision import RetrainDecision, disputes_of, newest_decision

    line = Line()
    log = line.log.records()
    newest = newest_decision(log, line.product(product).name)
    if newest is None:
        console.print(f"nothing was decided about {product} yet: the schedule drift_check looks at its traffic")
        return
    record = line.store.get_manifest(str(newest.body["record"]), RetrainDecision)
    disputes = disputes_of(log, newest)
    if as_json:
        told = [{"by": r.actor, "time": r.time.isoformat(), "reason": r.body["reason"]} for r in disputes]
        show(record.payload() | {"time": newest.time.isoformat(), "disputes": told})
        return
    console.print(f"{record.decision}  {newest.time.isoformat()}  (audit record {newest.sequence})")
    for reason in record.reasons:
        console.print(f"  {reason}")
    if record.decision == "hold":
        until = record.not_before.isoformat() if record.not_before else "whoever holds it lets go"
        console.print(f"  held by {record.held_by} until {until}; then it is decided again")
    for said in record.outlook.words if record.outlook else ():
        console.print(f"  {said}", markup=False)
    if record.effort_seconds is not None:
        console.print(f"  a run of the line is expected to take {record.effort_seconds / 60:.0f} minutes")
    for each in disputes:
        console.print(f"  disputed by {each.actor} at {each.time.isoformat()}: {each.body['reason']}")


@app.command()
def dispute(product: ProductName, reason: Why) -> None:
    """Object to the newest decision about a product. The objection is chained and shown with it; it changes nothing.

    Example: assay dispute billing-assistant --reason "the new questions are a campaign of one week"
    """
    from pipelines.stages.signals import retrain_decision

    line = Line()
    record = retrain_decision.dispute(line, line.product(product).name, reason, person())
    console.print(f"disputed (audit record {record.sequence})")


@app.command()
def freeze(as_json: JsonFlag = False) -> None:
    """Check HOME/freeze.yaml, and show what holds each product now.

    Example: assay freeze
    """
    line, now = Line(), datetime.now(UTC)
    path = freeze_file(line.home)
    read_calendar(path)
    incidents = open_incidents(line.log.records())
    found: dict[str, str | None] = {}
    for product in line.products():
        held = frozen(path, product.name, now)
        incident = incidents.get(product.name) or incidents.get(ALL)
        told = (
            f"an incident is open (audit record {incident.sequence}): {incident.body['reason']}" if incident else None
        )
        found[product.name] = held.why if held else told
    if as_json:
        show(found)
        return
    for name, why in found.items():
        console.print(f"{name}: {why or 'free'}")


@incident_app.command("open")
def incident_open(reason: Why, product: OneProduct = ALL) -> None:
    """Hold what would retrain by itself, from now until it is closed.

    Example: assay incident open --reason "wrong invoices since the import of Monday" --product billing-assistant
    """
    line = Line()
    name = product if product == ALL else line.product(product).name
    record = open_incident(line, name, reason, person())
    console.print(f"incident of {told(name)} is open (audit record {record.sequence})")


@incident_app.command("close")
def incident_close(reason: Why, product: OneProduct = ALL) -> None:
    """End an incident. What was held meanwhile is decided again within the hour.

    Example: assay incident close --reason "import mended" --product billing-assistant
    """
    record = close_incident(Line(), product, reason, person())
    console.print(f"incident of {told(product)} is closed (audit record {record.sequence})")
