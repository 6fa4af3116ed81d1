"""``assay erase | erasures``: a person's rows, and what learned from them."""

import sys
from typing import Annotated

import typer

from data_contracts.errors import BadInput
from pipelines.terminal import JsonFlag, console, show
from pipelines.wiring import Line

app = typer.Typer()


@app.command()
def erase(
    subject: Annotated[
        str,
        typer.Option(help="The person, as the subjectKey column of the sources writes it; - reads it from stdin."),
    ] = "",
    pseudonym: Annotated[
        str, typer.Option(help="Instead: the pseudonym of a row that names nobody (`assay trace ROW` shows it).")
    ] = "",
    reason: Annotated[
        str, typer.Option(help="Why. It is kept in the audit log for good: put no names or other personal data in it.")
    ] = "",
    queue: Annotated[bool, typer.Option("--queue", help="Leave it to the erasure sensor.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Finish what a crash left, and empty the queue.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Erase a person: rows, key, samples; revoke what learned from them, take it off routes; a signed receipt.

    Example: assay erase --subject C-10442 --reason "request 2026-118 under Art. 17 GDPR"
    """
    from pipelines.stages.data.ingest import pseudonym as pseudonym_of
    from pipelines.stages.signals import erasure_queue
    from pipelines.stages.signals.erasure import erase as erase_subject
    from pipelines.stages.signals.retrain_decision import recorded_effort

    if [bool(subject), bool(pseudonym), resume].count(True) != 1:
        raise BadInput("give one of --subject, --pseudonym and --resume")
    line = Line()

    def past_runs(product: str) -> list[float]:
        return recorded_effort(line.log.records(), product)

    if resume:
        receipts = erasure_queue.work_off(line, line.products(), past_runs)
        again = False
    else:
        who = pseudonym or pseudonym_of(line, sys.stdin.readline().rstrip("\n") if subject == "-" else subject)
        if queue:
            path = erasure_queue.submit(line, who, reason)
            console.print(f"waiting for the erasure sensor, or for `assay erase --resume`: {path}")
            return
        receipt, again = erase_subject(line, line.products(), who, reason, past_runs)
        receipts = [receipt]
    if as_json:
        show([{"digest": each.digest, "again": again, **each.payload()} for each in receipts])
        return
    for each in receipts:
        console.print(
            f"{'erased before' if again else 'erased'}: subject {each.subject}\n"
            f"  {len(each.rows)} rows in {len(each.data_sets)} data sets; {len(each.checkpoints)} checkpoints and "
            f"{len(each.releases)} releases revoked"
        )
        for taken in each.routes:
            console.print(f"  {taken.product}: {taken.fallback or 'the base model'} answers now, was {taken.release}")
        for proposal in each.retraining:
            cost = "unknown" if proposal.effort_seconds is None else f"about {proposal.effort_seconds} s"
            console.print(f"  {proposal.product}: train anew (`assay run {proposal.product}`), which takes: {cost}")
        for source in each.sources:
            console.print(f"  take the person out of the source: {source}")
        console.print(f"  receipt {each.digest}")
    if not receipts:
        console.print("nothing to finish")


@app.command()
def erasures(as_json: JsonFlag = False) -> None:
    """Every erasure with its receipt, checked against the audit log and its signatures, and what still waits.

    Example: assay erasures --json
    """
    from pipelines.stages.signals.erasure_receipts import listed

    found = listed(Line())
    if as_json:
        show([each.payload() for each in found])
        return
    for each in found:
        console.print(f"{each.state:<9}  {each.subject}  {each.receipt or ''}  {each.detail}")
    if not found:
        console.print("no erasure was asked for")
