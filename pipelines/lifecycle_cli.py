"""``assay releases | deprecate | retire | archive | root-cause | support-note | notices``: where releases stand, how
they are taken out of service, and what is said of it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from data_contracts.chain import ROOT_CAUSE_NAMESPACE
from data_contracts.digests import Digest
from data_contracts.lifecycle import Course, Standing
from data_contracts.rollbacks import Category
from pipelines.terminal import JsonFlag, ProductName, console, person, show, tell
from pipelines.wiring import Line

app = typer.Typer()

ReleaseId = Annotated[str, typer.Argument(help="A release id (sha256:...), or its first characters.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the audit log, and told to whom it concerns.")]


@app.command()
def releases(
    product: Annotated[str, typer.Option(help="Of this product only.")] = "", as_json: JsonFlag = False
) -> None:
    """Every registered release and its state: development, staging, production, deprecated, retired, archived.

    Example: assay releases --product billing-assistant
    """
    from data_contracts.lifecycle import follow

    course = follow(Line().log.records())
    found = {digest: each for digest, each in course.standings.items() if product in ("", each.product)}
    if as_json:
        show([_told(course, digest, each) for digest, each in found.items()])
        return
    for digest, each in found.items():
        live = ", live" if course.live(digest) else ""
        shredded = ", shredded" if each.shredded else ""
        until = f", answers until {each.sunset}" if each.state == "deprecated" else ""
        then = f", then {each.successor}" if until and each.successor else ""
        console.print(f"{digest}  {each.product}/{each.environment}  {each.state}{live}{until}{then}{shredded}")


@app.command()
def deprecate(
    release: ReleaseId,
    sunset: Annotated[str, typer.Option(help="Day (UTC) or time with a zone from which on it does not answer.")],
    reason: Reason,
    successor: Annotated[str, typer.Option(help="The release that customers should go to.")] = "",
) -> None:
    """Announce the end of a release: its answers carry the notice until the sunset; then it is refused.

    Example: assay deprecate sha256:4f1c --sunset 2030-01-31 --reason "prices changed" --successor sha256:9b2e
    """
    from pipelines.stages.release import lifecycle

    line = Line()
    digest = _registered(line, release)
    until = lifecycle.parse_sunset(sunset)
    to = _registered(line, successor) if successor else None
    record = lifecycle.deprecate(line, digest, until, reason, actor=person(), successor=to)
    console.print(f"{digest} is deprecated: it answers until {until.isoformat()} (audit record {record.sequence})")
    tell(line)


@app.command()
def retire(release: ReleaseId, reason: Reason) -> None:
    """Take a deprecated release out of service for good. Refused while it is live.

    Example: assay retire sha256:4f1c --reason "its successor is live"
    """
    from pipelines.stages.release import lifecycle

    line = Line()
    digest = _registered(line, release)
    record = lifecycle.retire(line, digest, reason, actor=person())
    console.print(f"{digest} is retired and never serves again (audit record {record.sequence})")
    tell(line)


@app.command()
def archive(release: ReleaseId, reason: Reason) -> None:
    """Close the books on a retired release, or on a candidate that nobody wants. All of it stays, to be verified.

    Example: assay archive sha256:4f1c --reason "out of support"
    """
    from pipelines.stages.release import lifecycle

    line = Line()
    digest = _registered(line, release)
    record = lifecycle.archive(line, digest, reason, actor=person())
    console.print(f"{digest} is archived (audit record {record.sequence})")


@app.command("root-cause")
def root_cause(
    product: ProductName,
    category: Annotated[Category, typer.Option(help="Where the cause lay.")],
    text: Annotated[str, typer.Option(help="What it was, in a sentence or two; kept in the audit log.")],
    key: Annotated[Path, typer.Option(help="Your SSH private key (or the public one, with ssh-agent).")],
    principal: Annotated[str, typer.Option("--as", help="Your name in the trust root.")] = "",
) -> None:
    """Sign why a rollback was needed. Until then nothing of the product is approved.

    Example: assay root-cause billing-assistant --category data --text "prices of last year" --key ~/.ssh/id_ed25519
    """
    from pipelines.stages.release import rootcause
    from resources.ssh_signatures import sign

    line = Line()
    statement = rootcause.statement_for(line, line.product(product), category, text)
    signature = sign(key, ROOT_CAUSE_NAMESPACE, rootcause.message(statement))
    record = rootcause.file(line, line.product(product), statement, signature, principal)
    console.print(f"filed by {record.actor} (audit record {record.sequence}): {product} can be approved again")


@app.command("support-note")
def support_note(
    product: ProductName,
    out: Annotated[Path | None, typer.Option(help="File to write; default: print it.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Who saw the release of the newest rollback, when and how often, and a status text to send them.

    Example: assay support-note billing-assistant --out note.md
    """
    from pipelines.stages.release import support_note as notes

    line = Line()
    note = notes.support_note(line, line.product(product))
    if as_json:
        show(note.payload())
    elif out is not None:
        out.write_text(notes.as_markdown(note))
        console.print(f"written: {out}")
    else:
        print(notes.as_markdown(note), end="")


@app.command()
def notices() -> None:
    """Send the notices that nobody took yet to the addresses of ASSAY_NOTIFY. The notices sensor does the same.

    Example: assay notices
    """
    line = Line()
    if not line.notifier.addresses:
        console.print("ASSAY_NOTIFY names no address")
    tell(line)


def _registered(line: Line, text: str) -> Digest:
    from pipelines.stages.release.registered import find_release

    return find_release(line, text)


def _told(course: Course, release: Digest, standing: Standing) -> dict[str, Any]:
    times = {"deprecated": standing.deprecated, "sunset": standing.sunset}
    told = {name: time and time.isoformat() for name, time in times.items()}
    return {"release": release, **standing._asdict(), **told, "live": course.live(release)}
