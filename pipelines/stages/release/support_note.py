"""The note for support after a rollback, from the audit log and the traces: a status text to send, and whom to."""

from collections.abc import Sequence

from data_contracts.chain import AuditRecord
from data_contracts.errors import Missing
from data_contracts.rollbacks import Saw, SupportNote
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts

_TIME = "%Y-%m-%d %H:%M:%S"


def support_note(parts: Parts, product: Product, rollback: AuditRecord | None = None) -> SupportNote:
    """Of this rollback of the product, else of its newest. Raises `Missing` when there is none."""
    records = parts.log.records()
    taken_back = rollback or newest_rollback(records, product)
    if taken_back is None:
        raise Missing(f"{product.name} was never rolled back: there is nothing to tell support")
    release, now = str(taken_back.body["from"]), taken_back.body["release"]
    promoted = [
        record
        for record in records[: taken_back.sequence]
        if record.event == "promotion.recorded" and record.body["release"] == release
    ]
    since = promoted[-1].time
    return SupportNote(
        product=product.name,
        environment=product.environment,
        release=release,
        now=None if now is None else str(now),
        since=since,
        until=taken_back.time,
        reason=str(taken_back.body["reason"]),
        saw=tuple(parts.traces.saw(product.name, release, since)),
    )


def newest_rollback(records: Sequence[AuditRecord], product: Product) -> AuditRecord | None:
    place = (product.name, product.environment)
    found = [
        each
        for each in records
        if each.event == "rollback.recorded" and (each.product, each.body["environment"]) == place
    ]
    return found[-1] if found else None


def as_markdown(note: SupportNote) -> str:
    """The status text first, which names nothing of ours; then the figures, for us."""
    since, until = (f"{each:%Y-%m-%d %H:%M} UTC" for each in (note.since, note.until))
    return "\n".join(
        [
            f"# {note.product}: rolled back on {until}",
            "",
            "## Status, to send",
            "",
            f"> Between {since} and {until} {note.product} answered with a version that we have since taken back.",
            f"> An earlier version has answered since {until}. Answers of that time may be wrong: please check what",
            "> you relied on, and tell us of any that was.",
            "",
            "## Who saw it",
            "",
            *(_table(note.saw) if note.saw else ["Nobody: it answered no request."]),
            "",
            f"Release {note.release} in {note.environment}; now {note.now or 'the base model'} answers.",
            f"Reason given: {note.reason}",
            "",
        ]
    )


def _table(saw: Sequence[Saw]) -> list[str]:
    rows = [
        f"| {each.tenant} | {each.answers} | {each.failed} | {each.first:{_TIME}} | {each.last:{_TIME}} |"
        for each in saw
    ]
    return ["| tenant | answers | requests without one | first | last |", "|---|---|---|---|---|", *rows]
