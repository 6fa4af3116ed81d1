"""Tell people what became of a release. What is to be told, and to whom it was told, follows from the audit log.

A notice is sent again until it was recorded as sent: at least once to every configured address, for a week.
"""

import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from data_contracts.chain import AuditRecord
from data_contracts.digests import Digest
from data_contracts.errors import AssayError
from pipelines.stages.protocols import Parts

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


def due(records: Iterable[AuditRecord], addresses: Sequence[str], now: datetime) -> list[Notice]:
    """What nobody was told yet, oldest first."""
    told: set[tuple[Digest, str]] = set()
    news: list[tuple[AuditRecord, str]] = []
    for record in records:
        if record.event == "notice.sent":
            told.add((str(record.body["about"]), str(record.body["address"])))
        elif record.time > now - TRIED_FOR and (text := _text(record)):
            news.append((record, text))
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


def _text(record: AuditRecord) -> str:
    """What happened, in words; empty for what nobody is told of."""
    body = record.body
    release, where = body.get("release"), f"{record.product} ({body.get('environment', 'canary')})"
    reason = body.get("reason")
    match record.event:
        case "promotion.recorded":
            return f"{where}: release {release} is live, in place of {body.get('displaced') or 'the base model'}."
        case "rollback.recorded":
            return f"{where}: rolled back to {release or 'the base model'} from {body.get('from')}: {reason}."
        case "canary.recorded" if body["outcome"] == "fail":
            return f"{record.product}: the canary of release {release} failed, the champion stays: {reason}."
        case "release.deprecated":
            then = f" Its successor is {body['successor']}." if body.get("successor") else ""
            return f"{where}: release {release} is deprecated and answers until {body['sunset']}: {reason}.{then}"
        case "release.retired":
            return f"{where}: release {release} is retired and never serves again: {reason}."
    return ""
