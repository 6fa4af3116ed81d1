"""``feedback://PRODUCT?kind=KIND``: what people said the answers should have been, as rows to learn from.

A correction becomes a row when it was accepted, or is a reviewer's own and was not rejected, and the words of its
question were kept. Each row names the answer and the release that it corrects.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_contracts.chain import AuditRecord
from data_contracts.digests import canonical_json
from data_contracts.feedback import Exchange, Feedback
from pipelines.stages.protocols import Parts

SCHEME = "feedback://"
BEGINNING, END = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


def decisions(log: Iterable[AuditRecord], product: str) -> dict[str, AuditRecord]:
    """By feedback, the newest record that accepted or rejected it."""
    events = ("feedback.accepted", "feedback.rejected")
    return {str(r.body["feedback"]): r for r in log if r.event in events and r.product == product}


def accepted(parts: Parts, product: str) -> list[tuple[Feedback, Exchange]]:
    """The corrections to learn from, each with its exchange, by id: one an answer, the newest of a reviewer's if there
    is any."""
    decided = decisions(parts.log.records(), product)
    chosen: dict[str, Feedback] = {}
    for each in sorted(parts.feedback.feedback(product, BEGINNING, END), key=lambda f: (f.by == "reviewer", f.time)):
        record = decided.get(each.feedback_id)
        taken = each.by == "reviewer" if record is None else record.event == "feedback.accepted"
        if each.correction is not None and taken:
            chosen[each.trace_id] = each
    pairs = [(each, parts.feedback.exchange(each.trace_id)) for each in chosen.values()]
    return sorted([(said, kept) for said, kept in pairs if kept], key=lambda pair: pair[0].feedback_id)


def write_rows(parts: Parts, url: str, kind: str, folder: Path) -> Path:
    """The rows of this kind as JSON lines below ``folder``, none where nothing is accepted yet."""
    product = url.removeprefix(SCHEME).partition("?")[0]
    path = folder / "feedback.jsonl"
    with path.open("wb") as file:
        for said, kept in accepted(parts, product):
            if kind == "sft" or said.correction != kept.answer:
                file.write(canonical_json(_row(parts, said, kept, kind)) + b"\n")
    return path


def _row(parts: Parts, said: Feedback, kept: Exchange, kind: str) -> dict[str, Any]:
    asked = [message.payload() for message in kept.messages]
    row = {
        "id": said.feedback_id,
        "subject": _subject(parts, said, kept),
        "answer": said.trace_id,
        "release": kept.release,
        "made": said.time.isoformat(),
        "tools": [tool.payload() for tool in kept.tools],
    }
    if kind == "sft":
        return row | {"messages": [*asked, {"role": "assistant", "content": said.correction}]}
    return row | {"prompt": asked, "chosen": said.correction, "rejected": kept.answer}


def _subject(parts: Parts, said: Feedback, kept: Exchange) -> str | None:
    """Pseudonym of who asked, else of who corrected, where either was named."""
    unnamed = parts.keyring.subject(f"{said.by}:{said.tenant}")
    return kept.subject or (said.author if said.author != unnamed else None)
