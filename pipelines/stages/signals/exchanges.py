"""The same windows of the answers that are kept in words: what they were about, and how they read. What is kept here of
them are counts and test statistics; a vector would tell too much of its text."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from data_contracts.digests import Digest, sha256_json
from data_contracts.feedback import Exchange
from data_contracts.traces import Position, SealedWindow
from evals.refusals import refuses
from evals.shift import energy_p
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.signals.policy import SignalPolicy
from pipelines.stages.signals.traces import Traffic, binned, counted, hits, kept, live_release

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST = 60
"""Windows that are cut at one look; the next look goes on. Reading a window for its meaning takes about a second."""
_PAGE = 1_000
_DIGITS = (0.01, 0.05, 0.15)
"""Shares of the characters of a question."""


def exchanges(parts: Parts, product: Product, policy: SignalPolicy, now: datetime | None = None) -> Traffic:
    """Of the release that is live by the audit log. A product that keeps no exchanges has no windows."""
    release = live_release(parts, product)
    shape = _shape(parts, policy)
    if release is not None:
        _seal(parts, product, release, policy, shape, now or datetime.now(UTC))
    return kept(parts, product, release, policy, shape)


def _shape(parts: Parts, policy: SignalPolicy) -> Digest:
    """Read by other models, a window says something else."""
    models = [parts.toxicity.identity, parts.embedder.identity, parts.language.identity]
    return sha256_json([policy.exchange_shape, *models])


def _seal(parts: Parts, product: Product, release: Digest, policy: SignalPolicy, shape: Digest, now: datetime) -> None:
    until = now - timedelta(seconds=policy.grace_seconds)
    with parts.locks.hold(f"exchanges-{product.name}"):
        known = parts.traces.sealed(release, shape, 1)
        last = known[-1] if known else None
        start = last.end if last else Position(begun(parts, release), "")
        found = answered_by(parts, product.name, release, start, until, _MOST * policy.exchanges)
        reference: Sequence[Exchange] = ()
        if known and len(found) >= policy.exchanges:
            first = known[0]
            before = Position((first.begins or first.time) - timedelta(microseconds=1), "")
            reference = answered_by(parts, product.name, release, before, first.time, policy.exchanges)
        for begin in range(0, len(found) - policy.exchanges + 1, policy.exchanges):
            window = found[begin : begin + policy.exchanges]
            number = last.number + 1 if last else 0
            last = _sealed(parts, number, window, reference, policy)
            parts.traces.seal(release, shape, [last])
            reference = reference or (window if number == 0 else ())


def _sealed(
    parts: Parts, number: int, window: Sequence[Exchange], reference: Sequence[Exchange], policy: SignalPolicy
) -> SealedWindow:
    answers = [said(each.answer) for each in window]
    questions = [asked(each) for each in window]
    toxic = sum(score >= policy.toxic_from for score in parts.toxicity.scores(answers))
    last = window[-1]
    return SealedWindow(
        number=number,
        begins=window[0].time,
        time=last.time,
        last=last.trace_id,
        answers=len(window),
        counts={
            "language": counted(parts.language.language(text) or "und" for text in questions),
            "digits": counted(binned(_digits(text), _DIGITS) for text in questions),
            "refusals": hits(sum(map(refuses, answers)), len(window)),
            "toxicity": hits(toxic, len(window)),
        },
        values=_meanings(parts, number, questions, answers, reference),
    )


def _meanings(
    parts: Parts, number: int, questions: Sequence[str], answers: Sequence[str], reference: Sequence[Exchange]
) -> dict[str, float]:
    """P-values of being about the same as the reference. None where too little of it is left: exchanges that are
    deleted, by age or for a person, are not read again."""
    if 2 * len(reference) < len(questions):
        return {}
    then = _vectors(parts, [*map(asked, reference), *(said(each.answer) for each in reference)])
    now = _vectors(parts, [*questions, *answers])
    half, n = len(reference), len(questions)
    return {
        "question_meaning": energy_p(then[:half], now[:n], seed=number),
        "answer_meaning": energy_p(then[half:], now[n:], seed=number),
    }


def asked(exchange: Exchange) -> str:
    """The last words of the user."""
    return next((each.content for each in reversed(exchange.messages) if each.role == "user"), "")


def said(answer: str) -> str:
    """What of an answer a person would read: the reply, where it is JSON with one."""
    try:
        value = json.loads(answer)
    except ValueError:
        return answer
    return str(value["reply"]) if isinstance(value, dict) and "reply" in value else answer


def _vectors(parts: Parts, texts: Sequence[str]) -> "NDArray[np.float32]":
    return parts.embedder.embed(texts)


def _digits(text: str) -> float:
    return sum(each.isdigit() for each in text) / max(1, len(text))


def answered_by(
    parts: Parts, product: str, release: Digest, after: Position, until: datetime, limit: int
) -> list[Exchange]:
    found: list[Exchange] = []
    while len(found) < limit:
        page = parts.feedback.exchanges(product, after, until, _PAGE)
        found += [each for each in page if each.release == release]
        if len(page) < _PAGE:
            break
        after = Position(page[-1].time, page[-1].trace_id)
    return found[:limit]


def begun(parts: Parts, release: Digest) -> datetime:
    """It answered nobody before it was registered."""
    known = (each.time for each in parts.log.records() if each.body.get("release") == release)
    return next(known, datetime(1970, 1, 1, tzinfo=UTC))
