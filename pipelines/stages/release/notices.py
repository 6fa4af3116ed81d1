"""Tell people what became of a release, and of alerts. What is to be told, and to whom it was told, follows from the
audit log.

A notice is sent again until it was recorded as sent: at least once to every configured address, for a week.
"""

import logging
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from data_contracts.chain import AuditRecord
from data_contracts.digests import Digest
from data_contracts.errors import AssayError
from pipelines.stages.protocols import Parts
from pipelines.stages.signals.alerts import alerts

TRIED_FOR = timedelta(days=7)
"""So long after its record a notice is sent; an address that is configured later hears of no older ones."""

log = logging.getLogger(__name__)


class Notice(NamedTuple):
    """What one address is to be told of one audit record."""

    address: str
    record: AuditRecord
    title: str
    text: str


class Told(NamedTuple):
    """``failed``: notices that will be sent again, each with what went wrong."""

    sent: tuple[Notice, ...]
    failed: tuple[tuple[Notice, str], ...]


def due(records: Sequence[AuditRecord], addresses: Sequence[str], now: datetime) -> list[Notice]:
    """What nobody was told yet, oldest first; all that one record brings about is one notice."""
    told: set[tuple[Digest, str]] = set()
    news: list[tuple[AuditRecord, str]] = []
    raised, over = _alerts(records, now)
    for record in records:
        if record.event == "notice.sent":
            told.add((str(record.body["about"]), str(record.body["address"])))
        elif record.time > now - TRIED_FOR:
            texts = [*raised[record.sequence], *filter(None, [_text(record)]), *over[record.sequence]]
            news += [(record, "\n\n".join(texts))] if texts else []
    return [
        Notice(address, record, f"Assay: {record.product}", text)
        for record, text in news
        for address in addresses
        if (record.digest, address) not in told
    ]


def deliver(parts: Parts, now: datetime | None = None) -> Told:
    """Send what is due and record what was taken. An address that fails is left for the next time."""
    if not parts.notifier.addresses:
        return Told((), ())
    sent: list[Notice] = []
    failed: list[tuple[Notice, str]] = []
    down: dict[str, str] = {}
    with parts.locks.hold("notices"):
        for notice in due(parts.log.records(), parts.notifier.addresses, now or datetime.now(UTC)):
            why = down.get(notice.address) or _send(parts, notice)
            if why:
                down[notice.address] = why
                failed.append((notice, why))
            else:
                sent.append(notice)
    return Told(tuple(sent), tuple(failed))


def _send(parts: Parts, notice: Notice) -> str:
    """What went wrong; empty when the address took it."""
    try:
        parts.notifier.send(notice.address, notice.title, notice.text)
    except AssayError as error:
        log.warning("notice of audit record %d not sent to %s: %s", notice.record.sequence, notice.address, error)
        return str(error)
    body = {"about": notice.record.digest, "address": notice.address}
    parts.log.append("notice.sent", notice.record.product, body, actor="notices")
    return ""


def _alerts(records: Sequence[AuditRecord], now: datetime) -> tuple[defaultdict[int, list[str]], ...]:
    """Sequence of a record -> the alerts that it raises, and those that it ends, in words."""
    raised: defaultdict[int, list[str]] = defaultdict(list)
    over: defaultdict[int, list[str]] = defaultdict(list)
    for alert in alerts(records, now):
        raised[alert.raised].append(alert.text)
        if alert.ended is not None:
            over[alert.ended].append(alert.text_over)
    return raised, over


def _text(record: AuditRecord) -> str:
    """What happened, in words; empty for what nobody is told of, or what is an alert."""
    body = record.body
    release, where = body.get("release"), f"{record.product} ({body.get('environment')})"
    reason = body.get("reason")
    match record.event:
        case "promotion.recorded":
            return f"{where}: release {release} is live, in place of {body.get('displaced') or 'the base model'}."
        case "release.deprecated":
            then = f" Its successor is {body['successor']}." if body.get("successor") else ""
            return f"{where}: release {release} is deprecated and answers until {body['sunset']}: {reason}.{then}"
        case "release.retired":
            return f"{where}: release {release} is retired and never serves again: {reason}."
    return ""
