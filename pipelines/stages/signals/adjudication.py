"""What users said waits for a person to accept or reject it; only then is it learned from. Decisions are chained."""

from collections.abc import Iterable
from datetime import datetime

from pydantic import JsonValue

from data_contracts.chain import AuditRecord, EventKind
from data_contracts.errors import BadInput, Missing
from data_contracts.feedback import Exchange, Feedback
from data_contracts.frozen import Frozen
from pipelines.stages.data.feedback import BEGINNING, END, decisions
from pipelines.stages.protocols import Parts


class Case(Frozen):
    """A correction with what was asked and answered, ``None`` where those words were not kept: nothing can be learned
    from it then. ``same`` and ``other`` are corrections of the same answer: in the same words, and in others."""

    feedback: Feedback
    exchange: Exchange | None
    same: tuple[str, ...]
    other: tuple[str, ...]


def queue(parts: Parts, product: str) -> list[Case]:
    """Users' corrections that nobody has decided yet, the oldest first."""
    decided = decisions(parts.log.records(), product)
    corrections = [each for each in parts.feedback.feedback(product, BEGINNING, END) if each.correction is not None]
    by_trace: dict[str, list[Feedback]] = {}
    for each in corrections:
        by_trace.setdefault(each.trace_id, []).append(each)
    return [
        _case(parts, each, by_trace[each.trace_id])
        for each in corrections
        if each.by == "user" and each.feedback_id not in decided
    ]


def undecided(parts: Parts, product: str, until: datetime) -> int:
    """Users' corrections up to then that wait for a person and could be learned from."""
    return sum(each.exchange is not None and each.feedback.time <= until for each in queue(parts, product))


def decide(parts: Parts, product: str, name: str, accept: bool, reason: str, actor: str) -> AuditRecord:
    """``name`` is the feedback's id, or the beginning of one alone. The newest decision counts. Raises `BadInput`,
    `Missing`."""
    if not reason.strip():
        raise BadInput("a decision needs a reason: it stays in the audit log")
    found = [
        each
        for each in parts.feedback.feedback(product, BEGINNING, END)
        if each.feedback_id.startswith(name) and each.correction is not None
    ]
    if len(found) != 1:
        raise Missing(
            f"{len(found)} corrections of {product} have an id that begins with {name!r}: `assay feedback queue "
            f"{product}` lists those that wait"
        )
    (said,) = found
    event: EventKind = "feedback.accepted" if accept else "feedback.rejected"
    body: dict[str, JsonValue] = {
        "feedback": said.feedback_id,
        "answer": said.trace_id,
        "release": said.release,
        "reason": reason,
    }
    return parts.log.append(event, product, body, actor=actor)


def _case(parts: Parts, said: Feedback, all_of_it: Iterable[Feedback]) -> Case:
    others = [each for each in all_of_it if each.feedback_id != said.feedback_id]
    same = tuple(each.feedback_id for each in others if _words(each) == _words(said))
    return Case(
        feedback=said,
        exchange=parts.feedback.exchange(said.trace_id),
        same=same,
        other=tuple(each.feedback_id for each in others if each.feedback_id not in same),
    )


def _words(said: Feedback) -> str:
    return " ".join(str(said.correction).casefold().split())
